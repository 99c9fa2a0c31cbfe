"""Define the command `embed`, which embeds the photographs of a folder into one file."""

import importlib.util
import shutil
from pathlib import Path

import click

from clipita.cli.long_runs import ProgressBar, kept_when_stopped
from clipita.cli.options import Unusable, common_options, crop_option, echo, print_json
from clipita.images.pixels import Crop
from clipita.loading.load import load
from clipita.locale.language import phrase
from clipita.search.embed_folder import Summary, embed_folder, fingerprint_of

# Two batches are decoded ahead, at 150 kB an image: 1.2 GB.
_LARGEST_BATCH = 4096


@click.command(short_help="Write the vectors of a folder's photographs into one file.")
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .npz or .parquet file."
)
@click.option("--batch-size", "-b", type=click.IntRange(1, _LARGEST_BATCH), default=32, show_default=True)
@click.option("--overwrite", is_flag=True, help="Delete the output first, and what is left of an unfinished run.")
@crop_option
@common_options
def embed(folder: Path, output: Path, batch_size: int, overwrite: bool, crop: Crop, model: str, as_json: bool) -> None:
    """Embed every photograph below FOLDER into one file.

    \b
        clipita embed foto -o foto.npz

    Give the same command again to go on with a run that was stopped, and after photographs were added, replaced or
    deleted: only those that are new, or changed in size or time, are embedded, and those that are gone leave the file.

    Hidden files, thumbnails and bins of other programs, and formats that are not read are left aside, and counted at
    the end. Links to folders are followed, each folder once.
    """  # noqa: D301 (click reads the character \b)
    _check_output(output)
    loaded = load(model)
    if overwrite:
        output.unlink(missing_ok=True)
        shutil.rmtree(output.with_name(output.name + ".partial"), ignore_errors=True)
    progress = ProgressBar()
    with (
        kept_when_stopped(phrase("Interrupted. Give the same command again, without --overwrite, to go on.")),
        progress,
    ):
        summary = embed_folder(
            loaded,
            folder,
            output,
            crop=crop,
            batch_size=batch_size,
            on_start=progress.start,
            on_done=progress.advance,
            on_failed=progress.fail,
        )

    if as_json:
        print_json(
            output=str(output),
            images=summary.total,
            new=summary.new,
            changed=summary.changed,
            gone=summary.gone,
            failed=[{"key": key, "error": error} for key, error in summary.failed.items()],
            left_aside=summary.found.counts(),
            model=loaded.name,
            fingerprint=fingerprint_of(loaded, crop),
        )
    else:
        echo(f"{output}: {_in_words(summary)}")
    if left_aside := summary.found.describe():
        echo(left_aside, err=True)
    if summary.failed:
        raise click.exceptions.Exit(1)


def _in_words(summary: Summary) -> str:
    kept = [phrase("{count:,} images, {new:,} of them new", count=summary.total, new=summary.new)]
    lost = [phrase("{count:,} failed", count=len(summary.failed))]
    if summary.changed:
        kept.append(phrase("{count:,} changed", count=summary.changed))
    if summary.gone:
        lost.append(phrase("{count:,} gone", count=summary.gone))
    return f"{', '.join(kept)}; {', '.join(lost)}"


def _check_output(output: Path) -> None:
    """Check, before any work is done, that the output can be written at the end."""
    if output.suffix not in (".npz", ".parquet"):
        message = phrase("{path!r} must end in .npz or .parquet.", path=str(output))
        raise click.BadParameter(message, param_hint="'--output'")
    if output.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise Unusable(phrase("a .parquet file needs pyarrow: pip install 'clipita[parquet]'. Or write a .npz file."))
    if not output.parent.is_dir():
        raise Unusable(
            phrase("{folder!r} is not a folder. Make it first: mkdir -p {folder!r}", folder=str(output.parent))
        )
