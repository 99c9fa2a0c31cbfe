"""The command `search`: the photographs of an index that fit a sentence or a photograph."""

import datetime
import os
import re
import shutil
import sys
from pathlib import Path

import click

from clipita.cli.options import Command, Unusable, echo, json_option, photographs, print_json
from clipita.cli.preview import Protocol, require_protocol, show
from clipita.images.photo_files import INDEX_FOLDER, is_picture_name
from clipita.locale.language import phrase
from clipita.search.contact_sheet import contact_sheet
from clipita.search.index import Index, Match, SearchResult
from clipita.search.query import Wanted, Weighted

_NOTHING = "Found nothing in the archive that seems to show it; --all shows the nearest photographs."
_NEAREST = "Found nothing that seems to show it; these are the nearest."


def archive_options(command: Command) -> Command:
    """Add the options that say which archive is meant."""
    command = click.option(
        "--index", "place", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Where its index is."
    )(command)
    return click.option(
        "--in",
        "photos",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=Path(),
        help="The folder of photographs, or one in it; by default the one you are in.",
    )(command)


@click.command(short_help="Find photographs by a sentence or a photograph.")
@click.argument("query", metavar="SENTENCE|PHOTO")
@archive_options
@click.option("--count", "-n", type=click.IntRange(min=1), default=20, show_default=True, help="Most photographs.")
@click.option("--more", multiple=True, metavar="[WEIGHT:]TEXT|PHOTO", help="What is to fit too; may be repeated.")
@click.option("--less", multiple=True, metavar="[WEIGHT:]TEXT|PHOTO", help="What is not to fit; may be repeated.")
@click.option("--since", metavar="DATE", help="Only photographs taken on that day, month or year, or later.")
@click.option("--until", metavar="DATE", help="Only photographs taken on that day, month or year, or before.")
@click.option("--below", metavar="SUBFOLDER", help="Only photographs in this folder of the archive.")
@click.option("--all", "show_all", is_flag=True, help="Show the nearest also if nothing shows what you ask for.")
@click.option("-0", "zero", is_flag=True, help="Print paths alone, each ended by a zero byte: ... -0 | xargs -0 eog")
@click.option("--preview", "-p", is_flag=True, help="Show the photographs too, in a terminal that can.")
@click.option(
    "--copy-to", type=click.Path(file_okay=False, path_type=Path), help="Copy the photographs into this folder."
)
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page of thumbnails, which needs no other file.",
)
@json_option
def search(
    query: str,
    photos: Path,
    place: Path | None,
    count: int,
    more: tuple[str, ...],
    less: tuple[str, ...],
    since: str | None,
    until: str | None,
    below: str | None,
    show_all: bool,
    zero: bool,
    preview: bool,
    copy_to: Path | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Find the photographs that fit a sentence best, or resemble a photograph.

    \b
        clipita search "una spiaggia al tramonto"
        clipita search foto.jpg --less "la neve" -n 5

    Exit status: 0 if something was found, 1 if nothing was, 2 if the search could not be made.
    """  # noqa: D301 (click reads the character \b)
    opened, inside = open_index(photos, place)
    chosen = {
        "count": count,
        "more": [_weighted(item) for item in more],
        "less": [_weighted(item) for item in less],
        "below": below_of(inside, below),
        "since": _day(since, "--since", last=False),
        "until": _day(until, "--until", last=True),
    }
    protocol = require_protocol() if preview else None
    wanted = _wanted(query)
    if isinstance(wanted, str):
        result = opened.search(wanted, show_all=show_all, **chosen)  # pyright: ignore[reportArgumentType]
    else:
        result = opened.similar(wanted, **chosen)  # pyright: ignore[reportArgumentType]
    _print(result, query, opened, zero=zero, as_json=as_json, protocol=protocol)
    if html is not None:
        html.write_text(contact_sheet(opened.photos, query, result), encoding="utf-8")
        echo(f"{html}: {photographs(len(result.matches))}", err=True)
    if copy_to is not None:
        _copy(opened.photos, result.matches, copy_to)
    if not result.found:
        if not as_json:
            echo(phrase(_NEAREST if result.matches else _NOTHING), err=True)
        raise click.exceptions.Exit(1)


def open_index(photos: Path, place: Path | None) -> tuple[Index, str]:
    """Return the index, and the folder inside its photographs that was named, "" for all."""
    if place is not None:
        return Index.open(index=place), ""
    folder = photos.resolve()
    for above in (folder, *folder.parents):
        if (above / INDEX_FOLDER).is_dir() and Index.open(above).exists:
            # As it was named where possible, so that paths are printed as the user knows them.
            return Index.open(photos if above == folder else above), folder.relative_to(above).as_posix().strip(".")
    missing = "there is no index in {folder!r} or above it. Make one first: clipita index {folder!r}"
    raise Unusable(phrase(missing, folder=str(photos)))


def below_of(inside: str, below: str | None) -> str | None:
    """Return the folder of an archive that --in and --below mean together, None for all."""
    parts = [part for part in (inside, (below or "").strip("/").removeprefix("./")) if part]
    return "/".join(parts) or None


def _wanted(text: str) -> Wanted:
    """Return a photograph's path where the text is one, and otherwise the sentence."""
    if os.path.isfile(text):
        return Path(text)
    if is_picture_name(text) and not re.search(r"\s", text):
        raise Unusable(phrase("{name!r} is called like a photograph, and there is no such file.", name=text))
    return text


def _weighted(text: str) -> Weighted:
    if found := re.fullmatch(r"(\d+(?:\.\d+)?):(.+)", text, re.DOTALL):
        return _wanted(found[2]), float(found[1])
    return _wanted(text)


def _day(text: str | None, option: str, *, last: bool) -> datetime.date | None:
    """Return the day that "2023-08-14" is, or the first or last one of "2023-08" or of "2023"."""
    if text is None:
        return None
    for pattern, months in (("%Y-%m-%d", 0), ("%Y-%m", 1), ("%Y", 12)):
        try:
            first = datetime.datetime.strptime(text, pattern).date()
        except ValueError:
            continue
        if not last or not months:
            return first
        month = first.year * 12 + first.month - 1 + months
        return datetime.date(month // 12, month % 12 + 1, 1) - datetime.timedelta(days=1)
    message = phrase("{text!r} is no date such as 2023-08-14, 2023-08 or 2023", text=text)
    raise click.BadParameter(message, param_hint=f"'{option}'")


def _print(
    result: SearchResult, query: str, opened: Index, *, zero: bool, as_json: bool, protocol: Protocol | None
) -> None:
    if as_json:
        results = [{"path": match.path, "score": match.score, **_more(match)} for match in result.matches]
        print_json(query=query, found=result.found, results=results)
    elif zero:
        for match in result.matches:
            sys.stdout.buffer.write(os.fsencode(opened.photos / match.path) + b"\0")
        sys.stdout.buffer.flush()
    else:
        for match in result.matches:
            number = len(match.copies)
            copies = phrase("(and 1 copy)" if number == 1 else "(and {count:,} copies)", count=number)
            echo(f"{match.score:6.3f}  {match.path}" + (f"  {copies}" if number else ""))
            if protocol is not None:
                show(opened.photos / match.path, protocol)


def _more(match: Match) -> dict[str, object]:
    return {
        "copies": list(match.copies),
        "taken": None if match.taken is None else match.taken.isoformat(),
        "width": match.width,
        "height": match.height,
    }


def _copy(photos: Path, matches: list[Match], target: Path) -> None:
    """Copy photographs under their names, with a number before the ending where two have the same."""
    target.mkdir(parents=True, exist_ok=True)
    for match in matches:
        source = photos / match.path
        copy, number = target / source.name, 1
        while copy.exists():
            number += 1
            copy = target / f"{source.stem}-{number}{source.suffix}"
        shutil.copy2(source, copy)
    echo(f"{target}: {photographs(len(matches))}", err=True)
