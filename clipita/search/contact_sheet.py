"""Write a page of thumbnails: one HTML file that needs no other file, no network and no script."""

import base64
import html
import io
import os
from pathlib import Path
from typing import Literal
from urllib.parse import quote

from clipita.errors import ImageError
from clipita.images.pixels import load_picture
from clipita.search.index import Match, SearchResult

_SIDE = 320  # pixels of the longer side: sharp at half that size on a phone
_PAGE = """<!doctype html>
<html lang="it">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; style-src 'unsafe-inline'">
<title>{title}</title>
<style>
:root {{ color-scheme: light dark; font: 15px/1.4 system-ui, sans-serif }}
body {{ margin: 1.5rem auto; max-width: 80rem; padding: 0 1rem }}
h1 {{ font-size: 1.4rem; font-weight: 600; overflow-wrap: anywhere }}
ol {{ display: grid; grid-template-columns: repeat(auto-fill, minmax(9.5rem, 1fr)); gap: 1rem }}
ol {{ list-style: none; padding: 0 }}
img {{ width: 100%; aspect-ratio: 1; object-fit: contain; background: #8882; border-radius: 4px }}
a {{ color: inherit }}
small {{ display: block; overflow-wrap: anywhere; opacity: .75 }}
</style>
<h1>{title}</h1>
<p>{count}</p>
<ol>
{items}
</ol>
</html>
"""
_ITEM = """<li><a href="{link}"><img alt="{name}" src="{thumbnail}"></a>{score:.3f}<small>{name}{taken}</small></li>"""


def contact_sheet(photos: Path, title: str, result: SearchResult) -> str:
    """Return a page that shows the photographs of a search, each with its name, its score and a link to the file.

    Args:
        photos: The folder of photographs.
        title: Stands above them.
        result: What was found.
    """
    count = f"{len(result.matches)} fotografie" if result.found else "Non ho trovato nulla"
    if not result.found and result.matches:
        count += "; ecco le più vicine"
    items = "\n".join(_item(photos, match) for match in result.matches)
    return _PAGE.format(title=html.escape(title), count=count, items=items)


def _item(photos: Path, match: Match) -> str:
    path = (photos / match.path).absolute()
    name = match.path.encode("utf-8", "replace").decode()
    return _ITEM.format(
        link=html.escape("file://" + quote(os.fsencode(path.as_posix()))),
        name=html.escape(name),
        thumbnail=_thumbnail(path),
        score=match.score,
        taken="" if match.taken is None else f" · {match.taken:%d.%m.%Y}",
    )


def _thumbnail(path: Path) -> str:
    """Return a small JPEG as a data URL; of a photograph that is gone or damaged since, nothing."""
    try:
        return "data:image/jpeg;base64," + base64.b64encode(thumbnail(path, _SIDE)).decode()
    except ImageError:
        return "data:,"


def thumbnail(path: Path, side: int, kind: Literal["JPEG", "PNG"] = "JPEG") -> bytes:
    """Return a small file of a photograph, at most `side` pixels wide and high.

    Raises:
        ImageError: it cannot be read.
    """
    picture, _ = load_picture(path, max_side=side, name=str(path))
    file = io.BytesIO()
    picture.convert("RGB").save(file, kind, quality=80)
    return file.getvalue()
