"""Define the command that writes a bundle for integers."""

from pathlib import Path

import click

from clipita.errors import ClipitaError
from clipita.images.photo_files import find_photos
from clipita.loading.open import open_model
from clipita_train.towers.integers import in_integers

_Folder = click.Path(path_type=Path, file_okay=False)


@click.command()
@click.argument("model")
@click.option("--photographs", type=_Folder, required=True, help="Of the kind that the model is for, 32 or more.")
@click.option("--out", type=_Folder, required=True, help="The bundle goes here.")
def quantize(model: str, photographs: Path, out: Path) -> None:
    """Write MODEL, a bundle with an EfficientNet, so that it computes images in integers."""
    try:
        files = [photographs / key for key in sorted(find_photos(photographs).keys)]
        made = in_integers(open_model(model).bundle, files, out)
    except (OSError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {out}: cosine to float32 {made.cosine:.4f} on average, {made.smallest:.4f} at worst")
