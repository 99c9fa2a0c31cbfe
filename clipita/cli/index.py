"""The command `index`: make a folder of photographs searchable, and keep it so."""

from pathlib import Path

import click

from clipita.cli.long_runs import ProgressBar, kept_when_stopped
from clipita.cli.options import echo, json_option, print_json
from clipita.locale.language import phrase
from clipita.search.index import Index
from clipita.search.update import UpdateSummary


@click.command(short_help="Make a folder of photographs searchable.")
@click.argument("folder", metavar="FOLDER", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option(
    "--index",
    "place",
    type=click.Path(file_okay=False, path_type=Path),
    help="Keep the index here, and not in the hidden folder .clipita of FOLDER.",
)
@click.option(
    "--exclude",
    "-x",
    multiple=True,
    metavar="PATTERN",
    help='Leave out what fits, as "*.gif" or "bozze"; may be repeated, and is kept for the next time. "" ends it.',
)
@click.option("--batch-size", "-b", type=click.IntRange(1, 4096), default=32, show_default=True)
@click.option(
    "--model",
    "-m",
    envvar="CLIPITA_MODEL",
    show_envvar=True,
    help="An embedded model, a folder, or a name on the hub; without it the one that the index was made with.",
)
@json_option
def index(
    folder: Path, place: Path | None, exclude: tuple[str, ...], batch_size: int, model: str | None, as_json: bool
) -> None:
    """Make the photographs below FOLDER searchable.

    \b
        clipita index foto
        clipita search "una spiaggia al tramonto" --in foto

    Give it again whenever photographs were added, replaced, moved or deleted: only pictures that the index has never
    seen go through the model. It may be stopped at any time, and searched while it runs.
    """  # noqa: D301 (click reads the character \b)
    opened = Index.open(folder, index=place, model=model)
    patterns = [pattern for pattern in exclude if pattern] if exclude else None
    progress = ProgressBar()
    with kept_when_stopped(phrase("Interrupted. Give the same command again to go on.")), progress:
        summary = opened.update(exclude=patterns, batch_size=batch_size, progress=progress)
    if as_json:
        print_json(
            index=str(opened.folder),
            added=summary.added,
            changed=summary.changed,
            moved=summary.moved,
            removed=summary.removed,
            unchanged=summary.unchanged,
            failed=len(summary.failed),
            embedded=summary.embedded,
            failures=[{"path": key, "error": reason} for key, reason in summary.failed.items()],
            left_aside=summary.found.counts(),
        )
    else:
        echo(f"{opened.folder}: {_in_words(summary)}")
    if left_aside := summary.found.describe():
        echo(left_aside, err=True)
    if summary.failed:
        raise click.exceptions.Exit(1)


def _in_words(summary: UpdateSummary) -> str:
    counts = {
        "{count:,} added": summary.added,
        "{count:,} changed": summary.changed,
        "{count:,} moved": summary.moved,
        "{count:,} removed": summary.removed,
        "{count:,} unchanged": summary.unchanged,
        "{count:,} failed": len(summary.failed),
    }
    words = [phrase(what, count=count) for what, count in counts.items() if count] or [phrase("nothing to do")]
    return f"{', '.join(words)}; {phrase('{count:,} embedded', count=summary.embedded)}"
