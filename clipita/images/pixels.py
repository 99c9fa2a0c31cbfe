"""Any image input -> the uint8 RGB pixels an image tower reads: decoded, upright, on white, in sRGB, resized, cropped.

What a tower is trained on, what it is evaluated on and what it serves are the same numbers: all come from here, decoded
by `clipita.images.decode` and cut by the geometry of `clipita.images.geometry`.
"""

import dataclasses
import os
from collections.abc import Callable
from typing import Any, Literal, TypeAlias, assert_never, cast, get_args

import numpy as np
from PIL import Image

from clipita.bundles.strict import from_mapping
from clipita.errors import CheckpointError
from clipita.images.budget import one_picture
from clipita.images.color import to_srgb
from clipita.images.decode import DEFAULT_MAX_PIXELS, FORMATS, Decoding, Encoded, ImageInput, decode
from clipita.images.geometry import FILTERS, View, fit, resize_and_crop, resize_and_pad, squash, tile_boxes
from clipita.system.arrays import Pixels

__all__ = [
    "DEFAULT_MAX_PIXELS",
    "FORMATS",
    "Crop",
    "Encoded",
    "ImageInput",
    "Pixels",
    "Preprocessing",
    "check_crop",
    "describe",
    "load_picture",
    "load_pixels",
    "load_squares",
]

Crop: TypeAlias = Literal["auto", "center", "pad", "tiles"]

# A JPEG is decoded in half, a quarter or an eighth of its pixels as long as each side keeps this many times those that
# it is resized to. On photographs of 0.8 to 12 megapixels, at 4, 3 and 2 times the embeddings of the embedded model
# have a mean cosine of 0.99996, 0.99986 and 0.9995 to those of all pixels (at least 0.9994, 0.9991, 0.998), in 1.9, 2.1
# and 2.4 times the speed; 4000 x 3000 become 1000 x 750 at 3 as at 2, and only 2000 x 1500 at 4.
_DRAFT_FACTOR = 3
# Colors take 10 ns a pixel to convert: 30 ms of 3 megapixels, and 2 at twice what the picture is resized to. Converted
# only then, they would be a little off, since a resized color lies between its neighbors in another way.
_CONVERSION_FACTOR = 2

# By default, a picture that is so many times as long as it is wide is seen in tiles. Of strips of three to eight
# photographs side by side, the middle square finds 51 to 79 % of what they show, tiles 97 to 98 % at their best; of
# 53 single photographs with ratios of 2.2 to 4 both name all but one or two (clipita-mini).
_PANORAMA = 2.5


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """What a bundle says about its pixels.

    Attributes:
        image_size: Side of the square that the image tower reads, in pixels.
        resize: "shortest": the shorter side becomes `short_side`, then the centre is cropped; "longest": the longer
            side becomes `image_size`, and the rest of the square has the grey level `fill`; "squash": the whole image
            becomes the square, whatever its shape.
        interpolation: Pillow's filter of that name, antialiased.
        mean: Of red, green and blue, in units of 0..255.
        std: Likewise. The graph computes (pixels - mean) / std; `load_pixels` does not.
        short_side: For "shortest"; None means `image_size`.
        crop: Where the crop begins when the two margins cannot be equal: "round" half to even, as torchvision and
            open_clip do, or "floor", as transformers' image processors do.
        transparency: "white": the image is laid on white; "drop": the colours under its transparency are seen, as
            Pillow's convert("RGB") leaves them, and with it transformers and open_clip.
        fill: For "longest".
    """

    image_size: int
    resize: Literal["shortest", "longest", "squash"]
    interpolation: Literal["bicubic", "bilinear", "nearest"]
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    short_side: int | None = None
    crop: Literal["round", "floor"] = "round"
    transparency: Literal["white", "drop"] = "white"
    fill: int = 0

    def __post_init__(self) -> None:
        if self.image_size < 1:
            raise ValueError(f"image_size must be 1 or more, but it is {self.image_size}")
        if self.short_side is not None and self.short_side < self.image_size:
            raise ValueError(f"short_side must be {self.image_size} or more, but it is {self.short_side}")
        if not 0 <= self.fill <= 255:
            raise ValueError(f"fill must be a grey level from 0 to 255, but it is {self.fill}")
        if len(self.mean) != 3 or not all(0 <= value <= 255 for value in self.mean):
            raise ValueError(f"mean must be 3 numbers from 0 to 255 (not 0 to 1), but it is {list(self.mean)}")
        if len(self.std) != 3 or not all(0 < value <= 255 for value in self.std):
            raise ValueError(f"std must be 3 numbers above 0 and up to 255, but it is {list(self.std)}")

    @classmethod
    def from_dict(cls, data: object, where: str = "image.preprocessing") -> "Preprocessing":
        """Read the object that a bundle holds; `CheckpointError` on a key or value that is not understood."""
        try:
            return from_mapping(cls, data, where)
        except ValueError as error:
            raise CheckpointError(f"{where}: {error}. Export the bundle again.") from error

    def to_dict(self) -> dict[str, Any]:
        """The object that a bundle holds: fields with a default only where they differ from it."""
        changed = {
            field.name: getattr(self, field.name)
            for field in dataclasses.fields(self)
            if getattr(self, field.name) != field.default
        }
        return changed | {"mean": list(self.mean), "std": list(self.std)}


def describe(image: object, index: int | None = None) -> str:
    """How errors call an image: "'foto/rossi.tif'", "images[3] ('foto/rossi.tif')", "images[3]" or "the image"."""
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
    """Read one image as an image tower wants it.

    EXIF orientation is applied; transparency is laid on white, or dropped if `preprocessing` says so; 16-bit gray is
    scaled to 8 bits; colors are converted to sRGB where an ICC profile says that they are others; of an animation or of
    a document the first frame or page counts. A JPEG that lacks its end mark and nothing else is read. Nothing that is
    passed in is changed or closed.

    Args:
        image: A path; an encoded image as bytes or as a binary file, which is read from its current position; a PIL
            image (its current frame); or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), gray or RGB(A).
        preprocessing: The bundle's.
        name: How errors call the image, see `describe`.
        max_pixels: Width x height above this is refused, for files before any pixel is decoded.
        exact: Give the pixels of torchvision's transforms to the bit, which ignore ICC profiles. Otherwise a large JPEG
            is decoded in fewer pixels, and only what the square shows is resized: up to four times as fast, and a few
            levels of 255 off at sharp edges.

    Returns:
        (image_size, image_size, 3) uint8, RGB.

    Raises:
        ImageTooLargeError: more pixels than `max_pixels`, or more memory than a file of its size may take.
        ImageError: anything else that keeps the image from being used; whatever the bytes, there is no other error.
    """
    return _resize(_view(image, name, max_pixels, preprocessing, exact), preprocessing, exact)


@one_picture()
def load_squares(
    image: ImageInput,
    preprocessing: Preprocessing,
    *,
    crop: Crop,
    name: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    exact: bool = False,
) -> Pixels:
    """Read one image as one square or several, for what does not fit into the square of `load_pixels`.

    Args:
        image, preprocessing, name, max_pixels, exact: As for `load_pixels`.
        crop: "center": one square, that of `load_pixels`. "pad": one square with the whole picture in its middle, on
            the tower's mean gray. "tiles": squares side by side along the longer side, which overlap where they have
            to. "auto": "tiles" of a picture that is 2.5 times as long as it is wide, or longer; "center" of all others,
            and of all where `exact` is asked for.

    Returns:
        (T, image_size, image_size, 3) uint8, RGB. Tiles come from left to right or from top to bottom; there are at
        most 16, and of a longer strip they are so many of its squares, evenly spread. T is 1 for all else.

    Raises:
        ImageTooLargeError, ImageError: As `load_pixels`.
    """
    if crop == "pad":
        gray = round(sum(preprocessing.mean) / 3)
        preprocessing = dataclasses.replace(preprocessing, resize="longest", short_side=None, fill=gray)

    def in_tiles(width: int, height: int) -> bool:
        is_panorama = max(width, height) >= _PANORAMA * min(width, height)
        return crop == "tiles" or (crop == "auto" and is_panorama and not exact)

    view = _view(image, name, max_pixels, preprocessing, exact, in_tiles)
    if not in_tiles(*view.size):
        return _resize(view, preprocessing, exact)[None]
    size, resample = preprocessing.image_size, FILTERS[preprocessing.interpolation]
    return np.stack([_rgb(view.image.resize((size, size), resample, box)) for box in tile_boxes(view)])


@one_picture()
def load_picture(
    image: ImageInput, *, max_side: int, name: str, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Image.Image, tuple[int, int]]:
    """Read the whole of an image, for a copy of it rather than for a tower; otherwise as `load_pixels` does.

    Returns:
        The picture upright, opaque and in mode "L" or "RGB", shrunk where its longer side is more than `max_side`; and
        the width and height that it had.

    Raises:
        ImageTooLargeError: more pixels than `max_pixels`, or more memory than a file of its size may take.
        ImageError: anything else that keeps the image from being used.
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
    """The picture in mode "L" or "RGB", in sRGB unless `exact`, and in no more pixels than it takes to resize it."""

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
    """(image_size, image_size, 3) uint8."""
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
