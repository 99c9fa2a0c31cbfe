"""The command `clipita-train augment-sheet`, which shows augmented photographs on one picture."""

from collections.abc import Sequence
from pathlib import Path

import click
import jax.numpy as jnp
import numpy as np
from PIL import Image

from clipita.errors import ImageError
from clipita.images.photo_files import is_hidden
from clipita.images.pixels import Preprocessing, load_pixels
from clipita.system.arrays import Pixels
from clipita_train.augment.apply import augment
from clipita_train.augment.presets import PRESETS, Augmentation
from clipita_train.engine.config import replace_from_strings

GAP = 4  # white pixels between two tiles


def sheet(photographs: Sequence[Pixels], config: Augmentation, *, columns: int, size: int, seed: int = 0) -> Pixels:
    """Arrange augmented photographs in a grid: a row for each photograph, unchanged first, then at `columns` steps.

    Args:
        photographs: (H, W, 3) uint8 each, all of one shape.
        config: How far each change goes.
        columns: How many steps to show.
        size: Side of a tile.
        seed: Seed of the augmentation.

    Returns:
        (height, width, 3) uint8: rows of `columns + 1` tiles with white lines between them.
    """
    pixels, ids = jnp.stack(photographs), jnp.arange(len(photographs), dtype=jnp.int32)
    tiles = [augment(pixels, ids, 0, config=Augmentation(), size=size)]
    tiles += [augment(pixels, ids, step, config=config, size=size, seed=seed) for step in range(columns)]
    padded = np.pad(np.stack(tiles, axis=1), ((0, 0), (0, 0), (0, GAP), (0, GAP), (0, 0)), constant_values=255)
    rows, across, height, width, channels = padded.shape
    return padded.transpose(0, 2, 1, 3, 4).reshape(rows * height, across * width, channels)[:-GAP, :-GAP]


@click.command("augment-sheet")
@click.argument("folder", type=click.Path(path_type=Path, file_okay=False, exists=True))
@click.option("--preset", type=click.Choice(list(PRESETS)), default="light", show_default=True)
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="E.g. hue=0.2 or scale=0.8,1.2.")
@click.option(
    "--rows", type=click.IntRange(1), default=6, show_default=True, help="How many photographs, the first by name."
)
@click.option("--columns", type=click.IntRange(1), default=7, show_default=True, help="How many steps.")
@click.option(
    "--size",
    type=click.IntRange(8),
    default=224,
    show_default=True,
    help="Side of the images that a tower reads, in pixels.",
)
@click.option(
    "--margin", type=click.IntRange(0), default=32, show_default=True, help="Pixels beyond that side, to crop from."
)
@click.option("--seed", default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), default=Path("sheet.png"), show_default=True)
def augment_sheet(
    folder: Path,
    preset: str,
    assignments: tuple[str, ...],
    rows: int,
    columns: int,
    size: int,
    margin: int,
    seed: int,
    out: Path,
) -> None:
    """Show on one picture what a preset does to photographs; the first column is not augmented."""
    canvas = Preprocessing(size + margin, "shortest", "bicubic", mean=(0.0, 0.0, 0.0), std=(255.0, 255.0, 255.0))
    photographs: list[Pixels] = []
    try:
        config = replace_from_strings(PRESETS[preset], assignments)
        for path in sorted(path for path in folder.iterdir() if path.is_file() and not is_hidden(path.name)):
            if len(photographs) == rows:
                break
            try:
                photographs.append(load_pixels(path, canvas, name=repr(str(path))))
            except ImageError as error:
                click.echo(f"left out: {error}", err=True)
        if not photographs:
            raise ValueError(f"no photograph that can be read in {folder}: name a folder that holds some")
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    Image.fromarray(sheet(photographs, config, columns=columns, size=size, seed=seed)).save(out, "PNG")
    click.echo(f"wrote {out}: {len(photographs)} photographs, each as it is and as {columns} steps see it; {config}")
