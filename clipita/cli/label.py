"""The command `label`: names for all photographs of an index, as text, in a table, or in XMP files beside them."""

import csv
import os
from pathlib import Path
from typing import Any

import click

from clipita.cli.options import Unusable, echo, echo_error, json_option, number_between, photographs, print_json
from clipita.cli.search import archive_options, below_of, open_index
from clipita.locale.language import phrase
from clipita.locale.recognition import recognized
from clipita.search.index import Index
from clipita.search.labels.examples import read_examples
from clipita.search.labels.file import read_labels
from clipita.search.labels.labeling import Labelled
from clipita.search.labels.sidecars import SidecarSummary, write_sidecars
from clipita.system.files import replacing


@click.command(short_help="Give an archive's photographs your labels, or keywords in XMP.")
@archive_options
@click.option(
    "--labels",
    metavar="FILE|LIST",
    help="A text file with a label a line, or animals, food, newsroom, heritage, retail. A line may be "
    '"label<TAB>threshold" and "Animali > Felini > gatto".',
)
@click.option(
    "--examples",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="A folder with a folder for each label, named like it, with three to ten photographs that show it.",
)
@click.option(
    "--threshold",
    type=float,
    callback=number_between(0.000001, 1, "a threshold"),
    help="The share that a label needs among 2,033 other phrases.  [default: 0.2, by example 0.7]",
)
@click.option(
    "--min-cosine",
    type=float,
    callback=number_between(-1, 1, "a cosine"),
    help="Give instead every label whose cosine with the photograph is at least this.",
)
@click.option("--top-k", "-k", type=click.IntRange(min=1), help="Most labels of a photograph, the best.")
@click.option("--below", metavar="SUBFOLDER", help="Only photographs in this folder of the archive.")
@click.option("--xmp", is_flag=True, help="Write the labels into XMP files beside the photographs, as keywords.")
@click.option(
    "--csv", "table", type=click.Path(dir_okay=False, path_type=Path), help="Write a table: path, label, share, cosine."
)
@json_option
def label(
    photos: Path,
    place: Path | None,
    labels: str | None,
    examples: Path | None,
    threshold: float | None,
    min_cosine: float | None,
    top_k: int | None,
    below: str | None,
    xmp: bool,
    table: Path | None,
    as_json: bool,
) -> None:
    """Give each photograph of an index those of your labels that it shows, or none.

    \b
        clipita label --in foto --labels animals
        clipita label --in foto --labels parole.txt --xmp
        clipita label --in foto --examples esempi --csv etichette.csv

    --xmp leaves the photographs as they are. In an XMP file that is there already, keywords are added and nothing else
    is touched; labels of the list that do not fit any more are taken out again, if it was clipita that wrote them.
    """  # noqa: D301 (click reads the character \b)
    if labels is None and examples is None:
        raise click.UsageError(phrase("Give --labels, --examples or both."))
    lines = read_labels(labels) if labels is not None else []
    opened, inside = open_index(photos, place)
    words = [line.label for line in lines]
    if examples is not None:
        bank = opened.examples_bank(read_examples(examples), words=words)
    else:
        bank = opened.model.label_bank(words)
    own = {line.label: line.threshold for line in lines if line.threshold is not None}
    thresholds = own if threshold is None else {**dict.fromkeys(bank.labels, threshold), **own}
    given = opened.label(bank, threshold=thresholds, min_cosine=min_cosine, top_k=top_k, below=below_of(inside, below))
    if table is not None:
        _write_table(table, given)
    path_of = {line.label: line.path for line in lines}
    written = _write_xmp(opened, given, [path_of.get(label, (label,)) for label in bank.labels]) if xmp else None
    if as_json:
        _print_json(opened, given, written)
    else:
        _print(given, quiet=xmp or table is not None)
        if written is not None:
            counts = {"count": len(written.written), "unchanged": written.unchanged}
            echo(phrase("{count:,} XMP files written, {unchanged:,} unchanged", **counts), err=True)
    if written is not None and written.failed:
        for path, reason in written.failed.items():
            echo_error(f"{path}: {recognized(reason)}")
        raise click.exceptions.Exit(1)


def _write_xmp(opened: Index, given: list[Labelled], labels: list[tuple[str, ...]]) -> SidecarSummary:
    """Write the XMP files of all photographs but those that were replaced since they were indexed."""
    changed = opened.changed_since(item.path for item in given)
    done = write_sidecars(opened.photos, [item for item in given if item.path not in changed], labels)
    reason = "is not what was indexed any more. Give clipita index first."
    return SidecarSummary(done.written, done.unchanged, {**dict.fromkeys(changed, reason), **done.failed})


def _write_table(table: Path, given: list[Labelled]) -> None:
    """Write a row for each label of each photograph; one without labels has a row with none."""
    try:
        # With a mark that spreadsheets need to read accents; names that are not UTF-8 are written visibly.
        with (
            replacing(table) as part,
            part.open("w", encoding="utf-8-sig", errors="backslashreplace", newline="") as file,
        ):
            rows = csv.writer(file)
            rows.writerow(("path", "label", "share", "cosine"))
            for item in given:
                for match in item.labels:
                    rows.writerow((item.path, match.label, f"{match.share:.4f}", f"{match.cosine:.4f}"))
                if not item.labels:
                    rows.writerow((item.path, "", "", ""))
    except OSError as error:
        reason = recognized(error.strerror or str(error))
        raise Unusable(phrase("{path!r} cannot be written: {reason}", path=str(table), reason=reason)) from error
    echo(f"{table}: {photographs(len(given))}", err=True)


def _print_json(opened: Index, given: list[Labelled], written: SidecarSummary | None) -> None:
    photographs: list[dict[str, Any]] = [
        {
            "path": item.path,
            "labels": [{"label": m.label, "share": m.share, "cosine": m.cosine} for m in item.labels],
        }
        for item in given
    ]
    sidecars = written and {
        "written": [os.fspath(path) for path in written.written],
        "unchanged": written.unchanged,
        "failures": [{"path": path, "error": reason} for path, reason in written.failed.items()],
    }
    print_json(photographs=photographs, xmp=sidecars, model=opened.model.name, fingerprint=opened.model.fingerprint)


def _print(given: list[Labelled], *, quiet: bool) -> None:
    if not quiet:
        for item in given:
            echo(f"{item.path}: {', '.join(match.label for match in item.labels) or '-'}")
    some = sum(bool(item.labels) for item in given)
    echo(phrase("{some:,} of {count:,} photographs have labels", some=some, count=len(given)), err=True)
