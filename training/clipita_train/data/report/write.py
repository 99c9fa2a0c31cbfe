"""Write the report of a build beside its manifest."""

import json
from pathlib import Path

from clipita_train.data.report.gather import gather
from clipita_train.data.report.page import page
from clipita_train.data.report.pictures import thumbnails
from clipita_train.engine.files import written_whole

REPORT = "report.html"


def write_report(out: Path, root: Path | None = None) -> Path:
    """Write `out`/report.html, one page with its pictures in it, and return its path.

    Args:
        out: The folder of a finished build.
        root: The folder of the build's sources, where photographs of dropped rows are; without it they have no picture.

    Raises:
        FileNotFoundError: The build is not finished, or the folder holds none.
    """
    found = gather(out)
    summary = json.loads((out / "build.json").read_text("utf-8"))
    shown = (*found.kept.values(), *found.dropped.values(), *found.caption_dropped.values(), *found.groups)
    pictures = thumbnails((row for rows in shown for row in rows), root, out)
    with written_whole(out / REPORT) as partial:
        partial.write_text(page(summary, found, pictures), encoding="utf-8")
    return out / REPORT
