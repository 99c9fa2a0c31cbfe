"""Make photographs of any size from those in examples/: enlarged, with the grain of a sensor, as ordinary JPEGs."""

import io

import numpy as np
from PIL import Image

from benchmarks.tools.measure import PHOTOS

# Standard deviation, in levels of 255. At quality 90 a photograph of 4000 x 3000 pixels then has some 5 MB, as from a
# camera; without grain it has 1 MB.
_GRAIN = 4


def jpegs(width: int, height: int, count: int) -> list[bytes]:
    """Return `count` JPEG files of this size, made from each photograph in turn; every second round is mirrored."""
    random = np.random.default_rng(0)
    files: list[bytes] = []
    for index in range(count):
        with Image.open(PHOTOS[index % len(PHOTOS)]) as photo:
            image = photo.convert("RGB").resize((width, height), Image.Resampling.BICUBIC)
        pixels = np.asarray(image)[:, :: -1 if index // len(PHOTOS) % 2 else 1]
        grain = random.normal(0, _GRAIN, (height, width, 1)).astype(np.float32)
        file = io.BytesIO()
        Image.fromarray((pixels + grain).clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=90)
        files.append(file.getvalue())
    return files
