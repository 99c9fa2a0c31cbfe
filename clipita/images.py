"""Any image input -> the uint8 RGB pixels an image tower reads: decode, turn upright, flatten on white, resize, crop.

What a tower is trained on, what it is evaluated on and what it serves are the same numbers: all come from here, by the
geometry of `clipita._geometry`. Colour profiles are not applied, as in the
pipelines that CLIP models are trained with.
"""

import contextlib
import dataclasses
import io
import os
import re
import threading
import warnings
from collections.abc import Generator
from typing import Any, BinaryIO, Literal, TypeAlias, cast

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile

from clipita._geometry import FILTERS, NO_MARGINS, UPRIGHT, Margins, View, fit, resize_and_crop, resize_and_pad, squash
from clipita._strict import from_mapping
from clipita.errors import CheckpointError, ImageError, ImageTooLargeError

Pixels: TypeAlias = npt.NDArray[np.uint8]
Encoded: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
ImageInput: TypeAlias = Encoded | Image.Image | Pixels

# Where Pillow itself stops by default: 2 * 1024**3 // 4 // 3. Decoded to 4 bytes a pixel it is 0.7 GB.
DEFAULT_MAX_PIXELS = 178_956_970

# In the order in which they are tried. Nothing here runs another program (EPS would start Ghostscript), guesses without
# a signature (TGA), or wraps a second file of another size (ICO). HEIF is there once the host has registered a plug-in.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "HEIF")

_ACCEPTED = "a path, bytes, a binary file, a PIL image or a NumPy uint8 array"
_GO_ON = "Copy or export it again, or use iter_encode_image to go on without it."
_PATH_REASONS: dict[type[Exception], str] = {
    FileNotFoundError: "does not exist. Check the path; a relative one starts at the working directory.",
    IsADirectoryError: "is a folder, expected an image file. Pass the files in it one by one.",
    PermissionError: "may not be read by this user. Change its permissions, or copy it.",
}
# A JPEG is decoded in half, a quarter or an eighth of its pixels as long as each side keeps this many times those that
# it is resized to. On photographs of 0.8 to 12 megapixels, at 4, 3 and 2 times the embeddings of the embedded model
# have a mean cosine of 0.99996, 0.99986 and 0.9995 to those of all pixels (at least 0.9994, 0.9991, 0.998), in 1.9, 2.1
# and 2.4 times the speed; 4000 x 3000 become 1000 x 750 at 3 as at 2, and only 2000 x 1500 at 4.
_DRAFT_FACTOR = 3

_warning_filters = threading.Lock()


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


def load_pixels(
    image: ImageInput,
    preprocessing: Preprocessing,
    *,
    name: str,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    exact: bool = False,
) -> Pixels:
    """Read one image as an image tower wants it.

    EXIF orientation is applied; transparency is laid on white, or dropped if `preprocessing` says so; 16-bit grey is
    scaled to 8 bits; of an animation or of a document the first frame or page counts. Nothing that is passed in is
    changed or closed.

    Args:
        image: A path; an encoded image as bytes or as a binary file, which is read from its current position; a PIL
            image (its current frame); or a uint8 array (H, W), (H, W, 1), (H, W, 3) or (H, W, 4), grey or RGB(A).
        preprocessing: The bundle's.
        name: How errors call the image, see `describe`.
        max_pixels: Width x height above this is refused, for files before any pixel is decoded.
        exact: Give the pixels of torchvision's transforms to the bit. Otherwise a large JPEG is decoded in fewer
            pixels, and only what the square shows is resized: up to four times as fast, and a few levels of 255 off
            at sharp edges.

    Returns:
        (image_size, image_size, 3) uint8, RGB.

    Raises:
        ImageTooLargeError: more pixels than `max_pixels`.
        ImageError: anything else that keeps the image from being used; whatever the bytes, there is no other error.
    """
    return _resize(_view(image, name, max_pixels, preprocessing, exact), preprocessing, exact)


def load_picture(
    image: ImageInput, *, max_side: int, name: str, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Image.Image, tuple[int, int]]:
    """Read the whole of an image, for a copy of it rather than for a tower; otherwise as `load_pixels` does.

    Returns:
        The picture upright, opaque and in mode "L" or "RGB", shrunk where its longer side is more than `max_side`; and
        the width and height that it had.

    Raises:
        ImageTooLargeError: more pixels than `max_pixels`.
        ImageError: anything else that keeps the image from being used.
    """
    longest = Preprocessing(max_side, "longest", "bicubic", (0.0, 0.0, 0.0), (255.0, 255.0, 255.0))
    view = _view(image, name, max_pixels, longest, exact=False)
    return fit(view, max_side, FILTERS["bicubic"]) if max(view.size) > max_side else view.image, view.size


def _view(image: ImageInput, name: str, max_pixels: int, preprocessing: Preprocessing, exact: bool) -> View:
    with contextlib.ExitStack() as stack:
        if isinstance(image, np.ndarray):
            source = _image_from_array(image, name)
        elif isinstance(image, Image.Image):
            source = image
        else:
            source = stack.enter_context(_open(image, name))
        try:
            return _decode(source, name, max_pixels, preprocessing, exact)
        except ImageError:
            raise
        except Exception as error:  # Pillow's decoders raise whatever hostile bytes make them stumble over
            raise _diagnosis(error, name) from error


def _image_from_array(image: npt.NDArray[Any], name: str) -> Image.Image:
    if image.dtype != np.uint8:
        raise ImageError(
            f"{name} is an array of {image.dtype}, expected uint8. Scale it to 0..255, then use .astype(numpy.uint8)."
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        advice = "Pass grey, RGB or RGBA pixels"
        if image.ndim == 4:
            advice = "Pass a batch as a list of arrays: list(images)"
        elif image.ndim == 3 and image.shape[0] in (1, 3, 4):
            advice = "Put the channels last: numpy.moveaxis(image, 0, -1)"
        raise ImageError(
            f"{name} is an array of shape {image.shape}, expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4). {advice}."
        )
    if image.size == 0:
        raise ImageError(f"{name} is an array of shape {image.shape}, which holds no pixel. Leave it out.")
    return Image.fromarray(image[:, :, 0] if image.shape[2:] == (1,) else image)


def _open(image: Encoded, name: str) -> BinaryIO:
    """The encoded image as a file at its first byte, for the caller to close."""
    if isinstance(image, (bytes, bytearray, memoryview)):
        return io.BytesIO(bytes(image))
    if isinstance(image, (str, os.PathLike)):
        return _open_path(os.fsdecode(image), name)
    if not hasattr(image, "read"):
        kind = f"{type(image).__module__}.{type(image).__qualname__}".removeprefix("builtins.")
        advice = "Convert it first: numpy.asarray(image)." if hasattr(image, "__array__") else "Pass one of these."
        raise ImageError(f"{name} is of type {kind}, expected {_ACCEPTED}. {advice}")
    try:
        # Pillow would rewind the file. Reading it here keeps the position, and works on pipes and sockets.
        data: object = image.read()
    except UnicodeDecodeError:
        data = None
    except Exception as error:
        raise ImageError(f"{name} cannot be read: {_text(error)}. Pass a file that is open for reading.") from error
    if not isinstance(data, bytes):
        raise ImageError(f"{name} is a file that does not give bytes. Open it in binary mode: open(path, 'rb').")
    return io.BytesIO(data)


def _open_path(path: str, name: str) -> BinaryIO:
    if re.match(r"[a-z][a-z0-9+.-]+://|data:", path, re.IGNORECASE):
        raise ImageError(
            f"{name} is a URL, and clipita opens no connection for images. Pass the path of a local file, or its bytes."
        )
    try:
        file = open(path, "rb")  # noqa: SIM115 (the caller closes it)
    except (OSError, ValueError) as error:  # ValueError: a null character in the path
        reason = _PATH_REASONS.get(type(error), f"cannot be opened: {_text(error)}. Check the path.")
        raise ImageError(f"{name} {reason}") from error
    if file.seekable():
        return file
    with file:
        return io.BytesIO(file.read())


def _decode(
    source: Image.Image | BinaryIO, name: str, max_pixels: int, preprocessing: Preprocessing, exact: bool
) -> View:
    """The picture upright, in mode "L" or "RGB"; its image may be `source` itself."""
    with _quiet_pillow():
        image = source if isinstance(source, Image.Image) else _identify(source, name)
        width, height = size = image.size
        if min(size) < 1:
            raise ImageError(f"{name} has {width} x {height} pixels, which is none. Leave it out.")
        if width * height > max_pixels:
            raise ImageTooLargeError(
                f"{name} has {width} x {height} = {width * height:,} pixels, more than the limit of {max_pixels:,}. "
                "Scale it down first, or raise max_pixels if you trust where it comes from."
            )
        if image.format == "TIFF":  # reads tags while it decodes, and warns of the odd ones
            image.load()
    margins = NO_MARGINS
    if not exact and image is not source and isinstance(image, ImageFile.ImageFile):
        margins = _draft(image, preprocessing)
    image.load()
    with _quiet_pillow():
        try:
            turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        except Exception:  # damaged EXIF: the pixels are good, and upright is the best guess
            turn = None
    drop_alpha = preprocessing.transparency == "drop"
    view = View(_flatten(image, name, drop_alpha), size, margins)
    return view if turn is None else view.turned(*turn)


def _draft(image: ImageFile.ImageFile, preprocessing: Preprocessing) -> Margins:
    """Has a JPEG decoded in as few pixels as `_DRAFT_FACTOR` allows; the margins of its `View`. Others stay whole."""
    if image.format not in ("JPEG", "MPO"):
        return NO_MARGINS
    width, height = image.size
    side = max(width, height) if preprocessing.resize == "longest" else min(width, height)
    factor = side // (_DRAFT_FACTOR * (preprocessing.short_side or preprocessing.image_size))
    drafted = image.draft(None, (max(1, width // factor), max(1, height // factor))) if factor > 1 else None
    if drafted is None:
        return NO_MARGINS
    _, _, right, bottom = drafted[1]
    return 0.0, 0.0, image.width - right, image.height - bottom


def _identify(file: BinaryIO, name: str) -> ImageFile.ImageFile:
    """Read the header.

    `Image.open` is not used: it would try every format it knows, apply the pixel limit of the whole process, and hide
    the cause of a failure behind "cannot identify image file".
    """
    signature = file.read(16)
    if not signature:
        raise ImageError(f"{name} is empty (0 bytes). {_GO_ON}")
    for register_formats in (Image.preinit, Image.init):  # the common ones first, all of them at need
        register_formats()
        for known in FORMATS:
            factory, accepts = Image.OPEN.get(known, (None, None))
            if factory and accepts and accepts(signature) is True:
                file.seek(0)
                return factory(file, "")
    heic = "; for HEIC, call pillow_heif.register_heif_opener() first" if signature[4:8] == b"ftyp" else ""
    raise ImageError(
        f"{name} is no image in a known format: it starts with {signature!r}. "
        f"Convert it to one of {', '.join(FORMATS[:-1])}{heic}."
    )


@contextlib.contextmanager
def _quiet_pillow() -> Generator[None]:
    """Silence Pillow's warnings (odd EXIF, malformed MPO), which under `-W error` would refuse good images.

    Warning filters belong to the process, not to the thread: hence the lock, and decoding as much as can be outside.
    """
    with _warning_filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _diagnosis(error: Exception, name: str) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):  # the decoders of TIFF and WebP ask Pillow themselves
        return ImageTooLargeError(
            f"{name} is too large for Pillow: {_text(error)}. "
            "Scale it down first, or raise PIL.Image.MAX_IMAGE_PIXELS if you trust where it comes from."
        )
    if isinstance(error, MemoryError):
        return ImageError(f"{name} takes more memory to decode than there is. Scale it down first.")
    if re.search(r"truncated|eof|end of|expected to read|not enough|broken data stream", str(error), re.IGNORECASE):
        return ImageError(f"{name} is truncated: its data end too early ({_text(error)}). {_GO_ON}")
    return ImageError(f"{name} is damaged or incomplete ({_text(error)}). {_GO_ON}")


def _text(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.rstrip(".") or type(error).__name__


def _flatten(image: Image.Image, name: str, drop_alpha: bool) -> Image.Image:
    """Mode "L" or "RGB", 8 bits, opaque. An image that is so already is returned as it is."""
    if image.mode == "F":
        raise ImageError(
            f"{name} holds floating-point values, and of what range is not known. Scale it to 0..255 in 8 bits."
        )
    if image.mode.startswith("I"):  # "I;16", its byte orders, and "I", which Pillow uses for 16 bits too
        return _scale_16_bit(image, name)
    if image.has_transparency_data and not drop_alpha:
        if image.mode == "La":
            image = image.convert("LA")  # convert("RGBA") would forget its alpha
        elif image.mode == "P":
            image = image.copy()  # convert("RGBA") would write the transparency into the caller's palette
        image = image if image.mode == "RGBA" else image.convert("RGBA")
        white = Image.new("RGB", image.size, "white")
        white.paste(image, mask=image)
        return white
    if image.mode in ("L", "RGB"):
        return image
    return image.convert("L" if image.mode == "1" else "RGB")


def _scale_16_bit(image: Image.Image, name: str) -> Image.Image:
    values = np.asarray(image)  # (H, W) uint16 in either byte order, or int32
    if values.min() < 0 or values.max() > 65535:
        raise ImageError(
            f"{name} holds values from {values.min()} to {values.max()}, expected 16 bits: 0 to 65535. "
            "Scale it to 0..255 in 8 bits."
        )
    # round(values / 257) in place of a float copy: 65535 / 257 = 255. Above 65407 it is 255, and + 128 would overflow.
    grey = np.minimum(values, 65407).astype(np.uint16)
    grey += 128
    grey //= 257
    if (transparent := image.info.get("transparency")) is not None:
        grey[values == transparent] = 255
    return Image.fromarray(grey.astype(np.uint8))


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
    return np.array(resized if resized.mode == "RGB" else resized.convert("RGB"))  # np.asarray would be read-only
