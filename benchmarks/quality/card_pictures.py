"""Draw what clipita-mini is right about and where it fails, for the model card: docs/pictures/card.webp.

    python -m benchmarks.quality.card_pictures

The pictures are those of `skimage.data` that are free to pass on (CC0, or in the public domain). Each stands with the
labels that were asked for, the first of which is right, and with the shares that the model gives them.
"""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont, ImageOps

import clipita
from benchmarks.quality.everyday_sheet import GREEN, RED

PICTURE = Path(__file__).parents[2] / "docs" / "pictures" / "card.webp"
SIDE, LINE, MARGIN, COLUMNS = 250, 22, 12, 4

# Names in `skimage.data`, and labels of which the first is right. One after the other, pairs of a kind of picture that
# it knows and one that it does not.
ASKED: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("chelsea", ("un gatto", "un cane", "un cavallo")),
    ("coffee", ("una tazza di caffè", "una bottiglia", "un piatto")),
    ("camera", ("un fotografo", "un pittore", "un golfista")),
    ("hubble_deep_field", ("delle stelle", "la luna", "un fiore")),
    ("rocket", ("un razzo sulla rampa", "una torre", "una chiesa")),
    ("coins", ("delle monete", "la luna", "un fiore")),
    ("retina", ("una retina", "un'arancia", "il sole")),
    ("coffee", ("il cucchiaino a destra", "il cucchiaino a sinistra")),
)


def main() -> None:
    """Ask the model, draw and write the picture."""
    from skimage import data

    model = clipita.load()
    rows = -(-len(ASKED) // COLUMNS)
    height = SIDE + 3 * LINE + MARGIN
    sheet = Image.new("RGB", (COLUMNS * (SIDE + MARGIN) + MARGIN, rows * height + MARGIN), "white")
    canvas, font = ImageDraw.Draw(sheet), ImageFont.load_default(16)
    for number, (name, labels) in enumerate(ASKED):
        pixels: Any = getattr(data, name)()
        picture = Image.fromarray(np.asarray(pixels, np.uint8)).convert("RGB")
        left, top = MARGIN + number % COLUMNS * (SIDE + MARGIN), MARGIN + number // COLUMNS * height
        sheet.paste(ImageOps.fit(picture, (SIDE, SIDE)), (left, top))
        for line, (label, score) in enumerate(model.zero_shot(picture, labels)):
            color = GREEN if label == labels[0] else RED if line == 0 else "#555555"
            text = f"{score:4.0%}  {label}".replace("è", "e'")  # Pillow's own font lacks accented letters
            canvas.text((left, top + SIDE + 2 + line * LINE), text, color, font)
    sheet.save(PICTURE, quality=85, method=6)
    print(f"{PICTURE}: {PICTURE.stat().st_size:,} bytes")


if __name__ == "__main__":
    main()
