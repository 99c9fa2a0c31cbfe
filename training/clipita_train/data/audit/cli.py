"""The commands `clipita-train data audit`: make sheets for raters, and evaluate their marks."""

from pathlib import Path

import click
import numpy as np

from clipita_train.data.audit.agreement import WEIGHTS, audit
from clipita_train.data.audit.sheet import draw, read_items, read_marks, write_sheet
from clipita_train.intervals import Estimate

File = click.Path(path_type=Path, dir_okay=False, exists=True)


@click.group("audit")
def audit_group() -> None:
    """Have translated captions rated, and measure how far the raters agree."""


@audit_group.command("draw")
@click.argument("captions", type=File)
@click.option("-n", "count", type=click.IntRange(2), default=100, show_default=True, help="How many captions.")
@click.option(
    "--caption", "caption_column", default="captions", show_default=True, help="The column with the captions to rate."
)
@click.option("--original", "original_column", help="The column with their originals.")
@click.option("--seed", default=0, show_default=True)
@click.option(
    "--out",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="The sheet, a CSV for spreadsheets; give each rater a copy.",
)
def draw_command(
    captions: Path, count: int, caption_column: str, original_column: str | None, seed: int, out: Path
) -> None:
    """Draw captions at random from a manifest, a CSV or JSON lines, and write them to a sheet for raters."""
    if out.exists():
        raise click.ClickException(f"{out} is there already and may have marks: name another file, or move it away")
    try:
        items = draw(
            read_items(captions, caption_column=caption_column, original_column=original_column), count, seed=seed
        )
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    write_sheet(items, out)
    click.echo(f"wrote {out}: {count} captions to be marked, 1 (wrong) to 4 (perfect)")


@audit_group.command("score")
@click.argument("sheets", type=File, nargs=-1, required=True)
@click.option("--best", type=click.IntRange(2), default=4, show_default=True, help="The highest mark; the lowest is 1.")
def score_command(sheets: tuple[Path, ...], best: int) -> None:
    """Print the mean mark, Gwet's AC2 (ordinal weights) and AC1 with 95 % intervals, and the captions marked lowest."""
    scale = list(range(1, best + 1))
    try:
        items, marks = read_marks(sheets)
        audits = {weights: audit(marks, scale, weights=weights) for weights in WEIGHTS}
    except ValueError as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{len(items)} captions, {marks.shape[1]} raters, {np.isnan(marks).sum()} marks missing")
    click.echo(f"mean {_interval(audits['ordinal'].mean, 2)} of {best}")
    click.echo(f"Gwet's AC2, ordinal weights {_interval(audits['ordinal'].agreement, 3)}")
    click.echo(f"Gwet's AC1 {_interval(audits['identity'].agreement, 3)}")
    means = np.nanmean(marks, axis=1)
    for place in np.argsort(means, kind="stable")[:5]:
        click.echo(f"{means[place]:.2f}  {items[place].caption}")


def _interval(estimate: Estimate, digits: int) -> str:
    return f"{estimate.value:.{digits}f} [{estimate.low:.{digits}f}, {estimate.high:.{digits}f}]"
