"""Photographs of any size, made of those in examples/: enlarged, with the grain of a sensor, and the usual JPEG."""

import io

import numpy as np
from PIL import Image

from benchmarks._measure import PHOTOS

_GRAIN = 4  # levels; at quality 90 it makes 4000 x 3000 pixels some 5 MB, as cameras do; without it they are 1 MB


def jpegs(width: int, height: int, count: int) -> list[bytes]:
    """`count` files of this size; the photographs in turn, each mirrored when it comes again."""
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
