"""The command `duplicates`: the files of an archive that show the same picture."""

from pathlib import Path

import click

from clipita.cli.options import echo, json_option, print_json
from clipita.cli.search import archive_options, open_index
from clipita.locale.language import phrase
from clipita.system.progress import counting


@click.command(short_help="List the files that show the same picture.")
@archive_options
@json_option
def duplicates(photos: Path, place: Path | None, as_json: bool) -> None:
    """List the photographs that are in an archive more than once.

    \b
        clipita duplicates --in foto

    Each group is of one picture: copies of the file, or the picture saved in another size, format or quality. The best,
    which has the most pixels, comes first. Nothing is deleted.
    """  # noqa: D301 (click reads the character \b)
    index, _ = open_index(photos, place)
    with counting(phrase("Comparing"), len(index)) as bar:
        groups = index.duplicates(on_done=bar.update)
    if as_json:
        print_json(groups=[{"paths": list(group.paths), "same_bytes": group.same_bytes} for group in groups])
        return
    for group in groups:
        for number, path in enumerate(group.paths):
            echo(path if number == 0 else f"    {path}")
    files = sum(len(group.paths) for group in groups)
    one = len(groups) == 1
    summary = "1 picture in {files:,} files" if one else "{count:,} pictures in {files:,} files"
    echo(phrase(summary, count=len(groups), files=files), err=True)
