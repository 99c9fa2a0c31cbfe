"""Turn any image input into the uint8 RGB pixels that an image tower reads.

An image is decoded, turned upright, laid on white, converted to sRGB, resized and cropped. Training, evaluation and
use all get their pixels from here, so that the numbers are the same. `clipita.images.decode` decodes, and
`clipita.images.geometry` resizes and crops.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Literal, TypeAlias, assert_never, cast, get_args

import numpy as np
from PIL import Image

from clipita.images.budget import one_picture
from clipita.images.color import to_srgb
from clipita.images.decode import DEFAULT_MAX_PIXELS, FORMATS, Decoding, EncodedImage, ImageInput, decode
from clipita.images.geometry import FILTERS, View, fit, resize_and_crop, resize_and_pad, squash, tile_boxes
from clipita.images.rules import Preprocessing
from clipita.images.seen import Seen, boxes_of_tiles, square_box
from clipita.system.arrays import Pixels

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "Crop",
    "EncodedImage",
    "ImageInput",
    "Pixels",
    "Preprocessing",
    "check_crop",
    "describe",
    "load_picture",
    "load_pixels",
    "load_seen",
    "load_squares",
]

Crop: TypeAlias = Literal["auto", "center", "pad", "tiles"]

# A JPEG is decoded in half, a quarter or an eighth of its pixels, as long as each side stays this many times as long as
# after resizing. On photographs of 0.8 to 12 megapixels, factors of 4, 3 and 2 give the embedded model a mean cosine of
# 0.99996, 0.99986 and 0.9995 to the embeddings of all pixels (at least 0.9994, 0.9991, 0.998), at 1.9, 2.1 and 2.4
# times the speed. 4000 x 3000 pixels become 1000 x 750 with a factor of 3 or 2, and 2000 x 1500 with 4.
_DRAFT_FACTOR = 3
# Colors take 10 ns a pixel to convert: 30 ms for 3 megapixels, and 2 ms at twice the size that the picture is resized
# to. Converted after resizing they would be a little off, since mixtures of colors differ between color spaces.
_CONVERSION_FACTOR = 2

# A picture that is at least this many times as long as it is wide is cut into tiles by default. In strips of three to
# eight photographs side by side, the middle square finds 51 to 79 % of the things shown, the best of the tiles 97 to
# 98 %. For 53 single photographs with ratios of 2.2 to 4 both are right on all but one or two (clipita-mini).
_PANORAMA = 2.5


def describe(image: object, index: int | None = None) -> str:
    """Name an image for errors: "'foto/rossi.tif'", "images[3] ('foto/rossi.tif')", "images[3]" or "the image"."""
    path = ""
    if isinstance(image, (str, os.PathLike)):
        path = repr(os.fsdecode(cast("str | os.PathLike[str]", image)))
        path = path if len(path) <= 200 else f"{path[:80]}...{path[-80:]}"
    if index is None:
        return path or "the image"
    return f"images[{index}]" + (f" ({path})" if path else "")


def check_crop(crop: object) -> None:
    """Raise a ValueError if `crop` is no `Crop`."""
    if crop not in get_args(Crop):
        raise ValueError(f"crop must be one of {', '.join(map(repr, get_args(Crop)))}, not {crop!r}")


@one_picture()
def load_pixels(
    image: ImageInput,
    preprocessing: Preprocessing,
    *,
    name: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    exact: bool = False,
) -> Pixels:
    """Read one image as the pixels of one square, for an image tower.

    EXIF orientation is applied. Transparency is laid on white, or dropped if `preprocessing` asks for that. 16-bit gray
    is scaled to 8 bits. Colors are converted to sRGB if an ICC profile states another space. Of an animation or a
    document the first frame or page is read. A JPEG that lacks nothing but its end mark is read. The input is neither
    changed nor closed.

    Args:
        image: A path; an encoded image as bytes or as a binary file, which is read from its current position; a PIL
            image (its current frame); or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), gray or RGB(A).
        preprocessing: The rules of the bundle.
        name: The image's name in error messages, see `describe`.
        max_pixels: The most pixels, width x height. A larger file is refused before any pixel is decoded.
        exact: Give the pixels of torchvision's transforms to the bit, which ignore ICC profiles. Otherwise a large JPEG
            is decoded in fewer pixels, and only the part inside the square is resized: up to four times as fast, and a
            few levels of 255 off at sharp edges.

    Returns:
        (image_size, image_size, 3) uint8, RGB.

    Raises:
        ImageTooLargeError: The image has more pixels than `max_pixels`, or takes more memory than a file of its size
            may.
        ImageError: It cannot be used for any other reason. No bytes cause another kind of error.
    """
    return _resize(_view(image, name, max_pixels, preprocessing, exact), preprocessing, exact)


def load_squares(
    image: ImageInput,
    preprocessing: Preprocessing,
    *,
    crop: Crop,
    name: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    exact: bool = False,
) -> Pixels:
    """Read one image as one square or several, so that long pictures can be seen whole.

    Args:
        image: As for `load_pixels`.
        preprocessing: As for `load_pixels`.
        crop: "center": one square, that of `load_pixels`. "pad": one square with the whole picture in its middle, on
            the tower's mean gray. "tiles": squares along the longer side, which overlap if they have to. "auto":
            "tiles" for a picture at least 2.5 times as long as it is wide; "center" for all others, and for all if
            `exact` is set.
        name: As for `load_pixels`.
        max_pixels: As for `load_pixels`.
        exact: As for `load_pixels`.

    Returns:
        (T, image_size, image_size, 3) uint8, RGB. Tiles come from left to right or from top to bottom. There are at
        most 16; in a longer strip these are spread evenly, with gaps. T is 1 for all other crops.

    Raises:
        ImageTooLargeError, ImageError: As `load_pixels`.
    """
    return load_seen(image, preprocessing, crop=crop, name=name, max_pixels=max_pixels, exact=exact).squares


@one_picture()
def load_seen(
    image: ImageInput,
    preprocessing: Preprocessing,
    *,
    crop: Crop,
    name: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    exact: bool = False,
) -> Seen:
    """Read one image as `load_squares` does, and say what part of the picture each square shows."""
    if crop == "pad":
        preprocessing = dataclasses.replace(
            preprocessing, resize="longest", short_side=None, fill=preprocessing.mean_gray
        )

    def in_tiles(width: int, height: int) -> bool:
        is_panorama = max(width, height) >= _PANORAMA * min(width, height)
        return crop == "tiles" or (crop == "auto" and is_panorama and not exact)

    view = _view(image, name, max_pixels, preprocessing, exact, in_tiles)
    if not in_tiles(*view.size):
        return Seen(_resize(view, preprocessing, exact)[None], [square_box(view.size, preprocessing)])
    size, resample = preprocessing.image_size, FILTERS[preprocessing.interpolation]
    squares = [_rgb(view.image.resize((size, size), resample, box)) for box in tile_boxes(view)]
    return Seen(np.stack(squares), boxes_of_tiles(view))


@one_picture()
def load_picture(
    image: ImageInput, *, max_side: int, name: str, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Image.Image, tuple[int, int]]:
    """Read the whole of an image, for a copy of it rather than for a tower.

    Args:
        image: As for `load_pixels`.
        max_side: The most pixels of the longer side; a larger picture is shrunk to it.
        name: As for `load_pixels`.
        max_pixels: As for `load_pixels`.

    Returns:
        The picture, upright, opaque and in mode "L" or "RGB"; and the width and height that it had in its file.

    Raises:
        ImageTooLargeError, ImageError: As `load_pixels`.
    """
    longest = Preprocessing(max_side, "longest", "bicubic", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    view = _view(image, name, max_pixels, longest, exact=False)
    return fit(view, max_side, FILTERS["bicubic"]) if max(view.size) > max_side else view.image, view.size


def _view(
    image: ImageInput,
    name: str,
    max_pixels: int,
    preprocessing: Preprocessing,
    exact: bool,
    in_tiles: Callable[[int, int], bool] | None = None,
) -> View:
    """Decode a picture in mode "L" or "RGB", in sRGB unless `exact`, and in no more pixels than resizing needs."""

    def times_target(width: int, height: int) -> int:
        fits_longer = preprocessing.resize == "longest" and not (in_tiles and in_tiles(width, height))
        side = max(width, height) if fits_longer else min(width, height)
        return side // (preprocessing.short_side or preprocessing.image_size)

    def shrink(width: int, height: int) -> int:
        return times_target(width, height) // _DRAFT_FACTOR

    drop_alpha = preprocessing.transparency == "drop"
    view = decode(image, Decoding(name, max_pixels, drop_alpha, colors=not exact, shrink=None if exact else shrink))
    convert = to_srgb(view.profile, view.image.mode)
    if convert is None:
        return view
    if (factor := times_target(*view.image.size) // _CONVERSION_FACTOR) > 1:
        view = view.reduced(factor)
    return view._replace(image=convert(view.image))


def _resize(view: View, preprocessing: Preprocessing, exact: bool) -> Pixels:
    """Resize and crop a picture by the rules of a bundle, to (image_size, image_size, 3) uint8."""
    size, resample = preprocessing.image_size, FILTERS[preprocessing.interpolation]
    match preprocessing.resize:
        case "shortest":
            short_side = preprocessing.short_side or size
            resized = resize_and_crop(view, short_side, size, resample, preprocessing.crop, exact=exact)
        case "squash":
            resized = squash(view, size, resample)
        case "longest":
            resized = resize_and_pad(view, size, resample, preprocessing.fill)
        case _:
            assert_never(preprocessing.resize)
    return _rgb(resized)


def _rgb(picture: Image.Image) -> Pixels:
    return np.array(picture if picture.mode == "RGB" else picture.convert("RGB"))  # np.asarray would be read-only
