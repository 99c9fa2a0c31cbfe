"""Resize and crop a picture to the square that an image tower reads.

With `exact` the result is that of torchvision (`Resize(size)` then `CenterCrop(size)` on Pillow images), to the bit.
Without it, only the part inside the square is resized, from a picture that its decoder may have shrunk before.
"""

import math
from typing import Literal, NamedTuple, assert_never

from PIL import Image

FILTERS = {
    "bicubic": Image.Resampling.BICUBIC,
    "bilinear": Image.Resampling.BILINEAR,
    "nearest": Image.Resampling.NEAREST,
}
_FILTER_RADIUS = 2  # of the widest filter, in pixels of the coarser image

# If an image would be enlarged to more pixels than this, only a piece of it is: at image_size 224, a strip more than
# 334 times as long as it is wide. 1 x 20000 pixels would become 224 x 4,480,000, which is 4 GB.
_MAX_ENLARGED_PIXELS = 2**24

# The most squares that a strip is cut into: 16 take as long as 16 photographs.
_MAX_TILES = 16

# How to turn a picture upright, by the value of its EXIF tag "Orientation" (1 is upright), and from which sides its
# margins on the left, top, right and bottom come.
UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, (2, 1, 0, 3)),
    3: (Image.Transpose.ROTATE_180, (2, 3, 0, 1)),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, (0, 3, 2, 1)),
    5: (Image.Transpose.TRANSPOSE, (1, 0, 3, 2)),
    6: (Image.Transpose.ROTATE_270, (3, 0, 1, 2)),
    7: (Image.Transpose.TRANSVERSE, (3, 2, 1, 0)),
    8: (Image.Transpose.ROTATE_90, (1, 2, 3, 0)),
}


Margins = tuple[float, float, float, float]  # on the left, top, right and bottom
NO_MARGINS: Margins = (0.0, 0.0, 0.0, 0.0)


class View(NamedTuple):
    """A picture, decoded whole or in fewer pixels.

    Attributes:
        image: The decoded pixels.
        size: The (width, height) of the picture in its file.
        margins: The parts of pixels at the left, top, right and bottom of `image` that show nothing. A decoder that
            shrinks by 8 makes 13 pixels of 97, and the last one shows a single column.
        profile: The ICC profile of the colors, or None.
    """

    image: Image.Image
    size: tuple[int, int]
    margins: Margins = NO_MARGINS
    profile: bytes | None = None

    @property
    def box(self) -> tuple[float, float, float, float]:
        """The box of the picture in `image`, without the margins: left, top, right, bottom."""
        left, top, right, bottom = self.margins
        return left, top, self.image.width - right, self.image.height - bottom

    def turned(self, transpose: Image.Transpose, margins_from: tuple[int, int, int, int]) -> "View":
        """Turn the picture by an entry of `UPRIGHT`."""
        is_on_its_side = margins_from[0] in (1, 3)
        width, height = self.size
        size = (height, width) if is_on_its_side else self.size
        left, top, right, bottom = (self.margins[index] for index in margins_from)
        return View(self.image.transpose(transpose), size, (left, top, right, bottom), self.profile)

    def reduced(self, factor: int) -> "View":
        """Shrink the picture to a `factor`-th of its pixels each way."""
        image = self.image.reduce(factor)
        left, top, right, bottom = (value / factor for value in self.box)
        return self._replace(image=image, margins=(left, top, image.width - right, image.height - bottom))


def resize_and_crop(
    view: View,
    short_side: int,
    size: int,
    resample: Image.Resampling,
    rounding: Literal["round", "floor"],
    *,
    exact: bool,
) -> Image.Image:
    """Resize the shorter side to `short_side`, and crop a square of `size` from the center.

    Without `exact` only the crop is resized, which saves a third of the work of shrinking. Pillow then keeps the box in
    float32 and may change the order of its two passes, so that photographs are 1 level of 255 off. Enlarged pictures
    are resized whole: they would gain little, and be up to 18 levels off.

    Args:
        view: The picture.
        short_side: The length of the shorter side after resizing, in pixels.
        size: The side of the square.
        resample: Pillow's filter.
        rounding: How to round the beginning of the crop: "round" half to even, or "floor".
        exact: Whether to give torchvision's pixels to the bit.
    """
    width, height = view.size
    short = min(view.size)
    shape, (left, top) = shortest_layout(view.size, short_side, size, rounding)
    is_strip = shape[0] * shape[1] > max(_MAX_ENLARGED_PIXELS, width * height)
    if (exact or short <= short_side) and not is_strip:
        return view.image.resize(shape, resample).crop((left, top, left + size, top + size))
    x, y, right, bottom = view.box
    across, down = (right - x) / shape[0], (bottom - y) / shape[1]  # pixels of `image` for one pixel of the result
    box = (x + left * across, y + top * down, x + (left + size) * across, y + (top + size) * down)
    if not is_strip:
        return view.image.resize((size, size), resample, box)
    # Only the part that the crop needs is kept, so that the box has small numbers, which float32 holds to 1e-5 pixels:
    # the result is within 1 level of that from the whole picture.
    reach = _FILTER_RADIUS + 1
    first_x, first_y = max(0, math.floor(box[0]) - reach), max(0, math.floor(box[1]) - reach)
    last_x = min(view.image.width, math.ceil(box[2]) + reach)
    last_y = min(view.image.height, math.ceil(box[3]) + reach)
    piece = view.image.crop((first_x, first_y, last_x, last_y))
    return piece.resize(
        (size, size), resample, (box[0] - first_x, box[1] - first_y, box[2] - first_x, box[3] - first_y)
    )


def shortest_layout(
    size: tuple[int, int], short_side: int, square: int, rounding: Literal["round", "floor"]
) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return the (width, height) of a picture whose shorter side is resized, and the (left, top) of the middle square.

    Args:
        size: The picture's (width, height).
        short_side: As for `resize_and_crop`.
        square: The side of the square.
        rounding: As for `resize_and_crop`.
    """
    short, long = sorted(size)
    scaled = int(short_side * long / short)  # torchvision's and transformers' rounding

    def margin(length: int) -> int:
        match rounding:
            case "round":  # Python's is torchvision's: half to even
                return round((length - square) / 2.0)
            case "floor":
                return (length - square) // 2
            case _:
                assert_never(rounding)

    start, side = margin(scaled), margin(short_side)
    if size[0] > size[1]:
        return (scaled, short_side), (start, side)
    return (short_side, scaled), (side, start)


def fitted_size(size: tuple[int, int], longer: int) -> tuple[int, int]:
    """Return the (width, height) of a picture whose longer side is resized to `longer`."""
    ratio = max(size) / longer
    width, height = (max(1, round(length / ratio)) for length in size)
    return width, height


def fit(view: View, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize the longer side to `size`, and the shorter by the same ratio."""
    return view.image.resize(fitted_size(view.size, size), resample, view.box)


def resize_and_pad(view: View, size: int, resample: Image.Resampling, fill: int) -> Image.Image:
    """Resize the longer side to `size` in the middle of a square, as open_clip's ResizeKeepRatio, CenterCropOrPad."""
    square = Image.new("RGB", (size, size), (fill, fill, fill))
    resized = fit(view, size, resample)
    square.paste(resized, ((size - resized.width) // 2, (size - resized.height) // 2))
    return square


def squash(view: View, size: int, resample: Image.Resampling) -> Image.Image:
    """Resize the whole picture to a square, without regard to its shape."""
    return view.image.resize((size, size), resample, view.box)


def tile_boxes(view: View) -> list[tuple[float, float, float, float]]:
    """Return squares that cover a picture evenly along its longer side, as boxes in `view.image`.

    Their side is the picture's shorter side. There are as many as the longer side holds, rounded up, and at most
    `_MAX_TILES`; a remainder of less than a tenth of a square is not counted.
    """
    left, top, right, bottom = view.box
    short, long = sorted(view.size)
    count = min(_MAX_TILES, max(1, math.ceil(long / short - 0.1)))
    is_wide = view.size[0] > view.size[1]
    length = right - left if is_wide else bottom - top
    side = length * short / long
    places = [i / (count - 1) for i in range(count)] if count > 1 else [0.5]
    starts = [(length - side) * place for place in places]
    if is_wide:
        return [(left + start, top, left + start + side, bottom) for start in starts]
    return [(left, top + start, right, top + start + side) for start in starts]
