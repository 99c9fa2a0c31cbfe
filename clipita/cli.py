"""The command `clipita`. Exit codes: 0 done, 1 done but for some images, 2 not done."""

import errno
import importlib.util
import logging
import shutil
import sys
import warnings
from pathlib import Path
from typing import Any

import click
from tqdm import tqdm

from clipita import __version__
from clipita._cli_models import convert, info, models
from clipita._cli_options import Unusable, common_options, print_json
from clipita._embed import embed_folder
from clipita.errors import ClipitaError
from clipita.model import load


class Commands(click.Group):
    """Shows clipita's errors and the system's as errors of the command, and not as tracebacks."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except ClipitaError as error:
            raise Unusable(str(error)) from error
        except OSError as error:
            if error.errno == errno.EPIPE:  # the reader of the output is gone, which click knows how to take
                raise
            raise Unusable(str(error)) from error


def show_warning(message: Warning | str, *_: object, **__: object) -> None:
    """A warning as the user of a command wants it: without its place in the code."""
    click.echo(f"Warning: {message}", err=True)


def _cosine(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
    if value is not None and not -1 <= value <= 1:  # nan too, which click.FloatRange lets pass
        raise click.BadParameter(f"{value} is not a cosine, from -1 to 1")
    return value


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="clipita")
@click.pass_context
def main(context: click.Context) -> None:
    """Italian text and images in one space."""
    context.with_resource(warnings.catch_warnings())
    warnings.simplefilter("always", UserWarning)
    warnings.showwarning = show_warning
    logging.basicConfig(format="%(levelname)s: %(message)s")


@main.command("zero-shot")
@click.argument("image")
@click.argument("labels", nargs=-1, required=True)
@click.option("--template", "-t", "templates", multiple=True, help='Sentence with "{}" for the label; may be repeated.')
@click.option("--top-k", "-k", type=click.IntRange(min=1), help="Print only so many labels, the best.")
@click.option(
    "--min-cosine", type=float, callback=_cosine, help="Leave out labels whose cosine is lower: none may be left."
)
@common_options
def zero_shot(
    image: str,
    labels: tuple[str, ...],
    templates: tuple[str, ...],
    top_k: int | None,
    min_cosine: float | None,
    model: str,
    as_json: bool,
) -> None:
    """Say which LABELS fit IMAGE: clipita zero-shot foto.jpg cane gatto"""
    loaded = load(model)
    scores = loaded.zero_shot(image, labels, templates=templates or None, top_k=top_k, min_cosine=min_cosine)
    if as_json:
        found = [{"label": label, "score": score} for label, score in scores]
        print_json(image=image, scores=found, model=loaded.name, fingerprint=loaded.fingerprint)
        return
    for label, score in scores:
        click.echo(f"{score:6.1%}  {label}")
    if not scores:
        click.echo("None of the labels fits.", err=True)


@main.command()
@click.argument("folder", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="A .npz or .parquet file."
)
@click.option("--batch-size", "-b", type=click.IntRange(min=1), default=32, show_default=True)
@click.option("--overwrite", is_flag=True, help="Delete the output first, and what is left of an unfinished run.")
@common_options
def embed(folder: Path, output: Path, batch_size: int, overwrite: bool, model: str, as_json: bool) -> None:
    """Embed every image below FOLDER into one file.

    A run that was stopped goes on where it was: give the same command again. So does one after images were added. A
    file is known by its path, so use --overwrite where files changed under their names.
    """
    _check_output(output)
    loaded = load(model)
    if overwrite:
        output.unlink(missing_ok=True)
        shutil.rmtree(output.with_name(output.name + ".partial"), ignore_errors=True)

    with tqdm(unit=" images", disable=None, file=sys.stderr) as bar:

        def on_start(total: int, done: int) -> None:
            bar.reset(total)
            bar.update(done)

        def on_result(key: str, error: str | None) -> None:
            bar.update()
            if error is not None:
                bar.write(f"{key} {error}", file=sys.stderr)

        try:
            summary = embed_folder(
                loaded, folder, output, batch_size=batch_size, on_start=on_start, on_result=on_result
            )
        except KeyboardInterrupt:
            bar.close()
            click.echo("Interrupted. Give the same command again, without --overwrite, to go on.", err=True)
            raise click.exceptions.Exit(130) from None

    if as_json:
        print_json(
            output=str(output),
            images=summary.total,
            new=summary.new,
            failed=[{"key": key, "error": error} for key, error in summary.failed.items()],
            model=loaded.name,
            fingerprint=loaded.fingerprint,
        )
    else:
        click.echo(f"{output}: {summary.total} images, {summary.new} of them new; {len(summary.failed)} failed")
    if summary.failed:
        raise click.exceptions.Exit(1)


for command in (info, models, convert):
    main.add_command(command)


def _check_output(output: Path) -> None:
    """Find what would fail at the end before any work is done."""
    if output.suffix not in (".npz", ".parquet"):
        raise click.BadParameter(f"{str(output)!r} must end in .npz or .parquet.", param_hint="'--output'")
    if output.suffix == ".parquet" and importlib.util.find_spec("pyarrow") is None:
        raise Unusable("a .parquet file needs pyarrow: pip install clipita[parquet]. Or write a .npz file.")
    if not output.parent.is_dir():
        raise Unusable(f"{str(output.parent)!r} is not a folder. Make it first: mkdir -p {str(output.parent)!r}")
