"""Define `Location`, which says where in a picture something is, and draws it."""

import dataclasses
import os
from pathlib import Path
from typing import cast

import numpy as np
from PIL import Image, ImageFilter

from clipita.images.decode import ImageInput
from clipita.images.pixels import describe, load_picture
from clipita.system.arrays import FloatArray

_LARGEST = 1024  # pixels of the longer side of a drawn picture
# Colors from low to high, which people who cannot tell red from green keep apart by their lightness.
_RAMP = np.array([(30, 20, 90), (130, 30, 120), (225, 70, 70), (252, 160, 40), (252, 250, 150)], np.float32)
_UNSEEN = 0.4  # brightness of what the model does not see
_FLOOR = 20  # percent of the cells: what they have is drawn as nothing


@dataclasses.dataclass(frozen=True, eq=False)
class Location:
    """Says where in a picture something is; made by `Model.locate`.

    Attributes:
        text: What was looked for.
        cosine: The cosine of the text and the whole picture, from -1 to 1.
        map: (rows, columns) float32 over the whole picture, high where it shows the text, NaN where the model does not
            look. By "exact" each cell has its share of the cosine: all together are the cosine, less what falls on the
            gray beside a padded picture. By "occlusion" it has what the cosine loses if the cell is hidden, and by
            "patches" its own cosine.
        method: "exact", "patches" or "occlusion".
    """

    text: str
    cosine: float
    map: FloatArray
    method: str
    _image: ImageInput = dataclasses.field(repr=False)

    @property
    def peak(self) -> tuple[float, float]:
        """The place of the highest value, as parts of the width and of the height: (0.5, 0.5) is the middle."""
        rows, columns = np.nonzero(self.map == np.nanmax(self.map))
        return float(columns.mean() + 0.5) / self.map.shape[1], float(rows.mean() + 0.5) / self.map.shape[0]

    def overlay(self, *, opacity: float = 0.75, max_side: int = _LARGEST) -> Image.Image:
        """Draw the map over the picture, which is read again; what the model does not see is dark.

        Args:
            opacity: From 0, the picture alone, to 1: the highest value covers the picture.
            max_side: The most pixels of the longer side; a larger picture is shrunk.

        Returns:
            An RGB picture.

        Raises:
            ValueError: A number is outside these bounds.
            ImageError: The picture is gone, or cannot be read any more.
        """
        if not 0 <= opacity <= 1 or max_side < 1:
            raise ValueError(f"opacity is from 0 to 1 and max_side from 1 on, not {opacity!r} and {max_side!r}")
        picture, _ = load_picture(self._image, max_side=max_side, name=describe(self._image))
        base = np.asarray(picture.convert("RGB"), np.float32)
        heat, seen = self._drawn(picture.size)
        alpha = (opacity * np.sqrt(heat) * seen)[..., None]
        place = heat * (len(_RAMP) - 1)
        below = np.minimum(place.astype(np.int64), len(_RAMP) - 2)
        part = (place - below)[..., None]
        colors = (1 - part) * _RAMP[below] + part * _RAMP[below + 1]
        mixed = (1 - alpha) * base * (_UNSEEN + (1 - _UNSEEN) * seen[..., None]) + alpha * colors
        return Image.fromarray(np.clip(np.rint(mixed), 0, 255).astype(np.uint8))

    def heat(self) -> FloatArray:
        """Return the map stretched to 0..1 for drawing, NaN as 0: most of a picture that shows one thing is 0."""
        low, high = float(np.nanpercentile(self.map, _FLOOR)), float(np.nanmax(self.map))
        stretched = (self.map - low) / max(high - low, float(np.finfo(np.float32).tiny))
        return np.nan_to_num(np.clip(stretched, 0, 1), nan=0.0).astype(np.float32)

    def _drawn(self, size: tuple[int, int]) -> tuple[FloatArray, FloatArray]:
        """Return the heat, and 1 where the model looks, both (height, width) float32 and with soft edges."""
        rows = self.map.shape[0]
        heat = Image.fromarray((255 * self.heat()).astype(np.uint8))
        seen = Image.fromarray(np.where(np.isnan(self.map), 0, 255).astype(np.uint8))
        heat = heat.filter(ImageFilter.GaussianBlur(min(rows, 32) / 16)).resize(size, Image.Resampling.BICUBIC)
        seen = seen.resize(size, Image.Resampling.NEAREST)
        return np.asarray(heat, np.float32) / np.float32(255), np.asarray(seen, np.float32) / np.float32(255)


def kept(image: ImageInput) -> ImageInput:
    """Return an image that can be read a second time: the contents of an open file, and all others as they are."""
    if isinstance(image, (str, os.PathLike)):
        return Path(os.fsdecode(image))
    read = getattr(image, "read", None)
    return cast(bytes, read()) if callable(read) and not isinstance(image, Image.Image) else image
