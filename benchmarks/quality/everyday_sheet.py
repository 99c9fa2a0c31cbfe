"""Draw thirty queries with their first photographs: python -m benchmarks.quality.everyday_sheet --model A --out FILE.

The queries are every fourth of the everyday archive of `clipita-train evaluate everyday`. A frame is green around a
photograph that is relevant, yellow where it is acceptable, and red where it is neither. The picture is a JPEG of 1.5 MB
at most, so two of them, of one model and the next, can be sent together.
"""

import argparse
import io
import unicodedata
from pathlib import Path

import numpy as np
from clipita_train.evaluate.embedding_cache import cache_folder
from clipita_train.evaluate.everyday.scores import ArchiveSearch, embedded, search_archive
from clipita_train.evaluate.everyday.sets import ARCHIVE, everyday_sets, files
from PIL import Image, ImageDraw, ImageFont, ImageOps

import clipita

QUERIES, FIRST, EVERY = 30, 5, 4
LARGEST = 1_500_000  # bytes
SIDE, FRAME, TITLE, COLUMNS = 150, 4, 22, 2
GREEN, YELLOW, RED = "#2a9d4a", "#e0b000", "#c43c3c"


def draw(found: ArchiveSearch, places: dict[str, Path], title: str) -> Image.Image:
    """Return the picture of thirty queries.

    Args:
        found: The answers of a model.
        places: The files of the photographs, by name.
        title: What stands above.
    """
    chosen = np.flatnonzero(found.relevant.any(1))[::EVERY][:QUERIES]
    lines = -(-len(chosen) // COLUMNS)
    width, height = FIRST * SIDE + 16, SIDE + TITLE
    sheet = Image.new("RGB", (COLUMNS * width, TITLE + lines * height), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    inner = SIDE - 2 * FRAME - 2
    canvas.text((4, 2), title, "black", font)
    for number, row in enumerate(chosen):
        left, top = number // lines * width, TITLE + number % lines * height
        canvas.text((left + 4, top + 1), _without_accents(found.queries[row].text), "black", font)
        for place, column in enumerate(np.argsort(-found.cosines[row], kind="stable")[:FIRST]):
            color = GREEN if found.relevant[row, column] else YELLOW if found.acceptable[row, column] else RED
            with Image.open(places[found.names[column]]) as opened:
                upright = ImageOps.exif_transpose(opened).convert("RGB")
            framed = ImageOps.expand(ImageOps.fit(upright, (inner, inner)), FRAME, color)
            sheet.paste(framed, (left + place * SIDE, top + TITLE))
    return sheet


def _without_accents(text: str) -> str:
    """Write "papà" as "papa'", since Pillow's own font lacks accented letters."""
    parts = unicodedata.normalize("NFD", text)
    return "".join("'" if unicodedata.combining(letter) else letter for letter in parts)


def compressed(sheet: Image.Image, largest: int = LARGEST) -> bytes:
    """Return a picture as JPEG, in the best quality that takes no more than `largest` bytes.

    Raises:
        ValueError: None does.
    """
    for quality in range(90, 20, -5):
        written = io.BytesIO()
        sheet.save(written, "JPEG", quality=quality, optimize=True)
        if written.tell() <= largest:
            return written.getvalue()
    raise ValueError(
        f"a picture of {sheet.width} x {sheet.height} takes more than {largest:,} bytes; draw fewer queries"
    )


def main() -> None:
    """Read the arguments and write the picture."""
    parser = argparse.ArgumentParser(description="Draw thirty queries with their first five photographs.")
    parser.add_argument("--model", default="clipita-mini", help="an embedded model, a folder, or a name on the hub")
    parser.add_argument("--out", type=Path, required=True, help="the JPEG to write")
    parser.add_argument("--root", type=Path, default=Path("photographs"), help="holds the clones, as OWNER/NAME")
    parser.add_argument("--cache", type=Path, help="a folder to keep embeddings in")
    given = parser.parse_args()
    model = clipita.load(given.model)
    places = files([photo for photo in everyday_sets().photographs if ARCHIVE in photo.sets], given.root)
    with cache_folder(given.cache) as cache:
        found = search_archive(model, embedded(model, places, cache), cache)
    given.out.write_bytes(compressed(draw(found, places, f"{model.name} {model.fingerprint}")))


if __name__ == "__main__":
    main()
