"""Decode any image input to an upright, opaque picture in 8 bits."""

import contextlib
import dataclasses
import hashlib
import importlib
import io
import os
import re
import threading
import traceback
import warnings
from collections.abc import Callable, Generator
from typing import Any, BinaryIO, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, ImageFile

from clipita.errors import ImageError, ImageTooLargeError
from clipita.images import raw
from clipita.images.bounds import check, check_head, check_pixels, cost
from clipita.images.budget import reserve
from clipita.images.color import to_srgb
from clipita.images.geometry import NO_MARGINS, UPRIGHT, Margins, View
from clipita.images.jpeg import endings
from clipita.images.libtiff import without_messages
from clipita.system.arrays import Pixels
from clipita.system.process import in_forked_children

EncodedImage: TypeAlias = str | os.PathLike[str] | bytes | bytearray | memoryview | BinaryIO
ImageInput: TypeAlias = EncodedImage | Image.Image | Pixels
Shrink: TypeAlias = Callable[[int, int], int]

# The number from which on Pillow itself refuses by default: 2 * 1024**3 // 4 // 3. At 4 bytes a pixel it is 0.7 GB.
DEFAULT_MAX_PIXELS = 178_956_970

# In the order in which they are tried. Left out are formats that run another program (EPS starts Ghostscript), have no
# signature (TGA), or wrap a second file of another size (ICO). HEIF needs pillow-heif.
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP", "AVIF", "JPEG2000", "PPM", "HEIF")

_ACCEPTED = "a path, bytes, a binary file, a PIL image or a NumPy uint8 array"
_GO_ON = "Copy or export it again, or use iter_encode_image to go on without it."
_PATH_REASONS: dict[type[Exception], str] = {
    FileNotFoundError: "does not exist. Check the path; a relative one starts at the working directory.",
    IsADirectoryError: "is a folder, expected an image file. Pass the files in it one by one.",
    PermissionError: "may not be read by this user. Change its permissions, or copy it.",
}

_warning_filters = threading.RLock()


def _new_lock() -> None:
    """Replace the lock in a forked child: a thread that held it in the parent does not exist there."""
    global _warning_filters
    _warning_filters = threading.RLock()


in_forked_children(_new_lock)


@dataclasses.dataclass(frozen=True)
class Decoding:
    """The settings of decoding an image.

    Attributes:
        name: The image's name in error messages.
        max_pixels: The most pixels, width x height. A larger file is refused before any pixel is decoded.
        drop_alpha: Whether to show the colors under transparency; otherwise the image is laid on white.
        colors: Whether to heed the ICC profile of the image: CMYK is then converted by it, and for other images it is
            returned with the picture.
        shrink: A function that returns, for a JPEG of (width, height), by which factor it may be decoded smaller; None
            keeps every pixel.
    """

    name: str
    max_pixels: int = DEFAULT_MAX_PIXELS
    drop_alpha: bool = False
    colors: bool = True
    shrink: Shrink | None = None


def decode(image: ImageInput, how: Decoding) -> View:
    """Decode an image of any kind of input, which is neither changed nor closed.

    Args:
        image: A path, bytes, an open binary file, a PIL image, or a uint8 array (H, W), (H, W, 1), (H, W, 3) or
            (H, W, 4).
        how: The settings.

    Returns:
        The picture upright, opaque and in mode "L" or "RGB"; its image may be `image` itself. An ICC profile that is
        still to be applied comes with it, since that is faster after the picture is resized.

    Raises:
        ImageTooLargeError: It has more pixels than `how.max_pixels`, or takes more memory than a file of its size may.
        ImageError: It cannot be used for any other reason. No bytes cause another kind of error.
    """
    with contextlib.ExitStack() as stack:
        if isinstance(image, np.ndarray):
            source = _image_from_array(image, how.name)
        elif isinstance(image, Image.Image):
            source = image
        else:
            source = stack.enter_context(_open(image, how.name))
        try:
            return _decode_quietly(source, how)
        except ImageError as error:
            _let_go(error)
            raise
        except Exception as error:  # hostile bytes make Pillow's decoders raise anything
            _let_go(error)
            whole = None if isinstance(source, Image.Image) else _without_its_end(source, how)
            if whole is None:
                raise _diagnosis(error, how.name) from error
            return whole


def read_header(image: EncodedImage, name: str) -> tuple[tuple[int, int], Image.Exif]:
    """Read an image's width and height, before it is turned upright, and its EXIF; no pixel is decoded.

    Raises:
        ImageError: it is no image in a known format, or its head is damaged.
    """
    with _open(image, name) as file:
        try:
            with _quiet_pillow():
                found, _ = _identify(file, Decoding(name))
                with found:
                    try:
                        exif = found.getexif()
                        exif.get_ifd(ExifTags.IFD.Exif)
                    except Exception:  # damaged EXIF: the image may be good
                        exif = Image.Exif()
                    return found.size, exif
        except ImageError as error:
            _let_go(error)
            raise
        except Exception as error:  # Pillow's readers raise whatever hostile bytes make them stumble over
            _let_go(error)
            raise _diagnosis(error, name) from error


def _decode_quietly(source: Image.Image | BinaryIO, how: Decoding) -> View:
    try:
        return _decode(source, how)
    except Warning:  # under `-W error`, from a decoder that warns while it decodes, such as that of animated PNGs
        if not isinstance(source, Image.Image):
            source.seek(0)
        return _decode(source, how, quiet=True)


def _let_go(error: BaseException | None) -> None:
    """Free the pictures that an error's traceback refers to: callers may collect the errors of many pictures."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__context__


def _without_its_end(file: BinaryIO, how: Decoding) -> View | None:
    """Decode a JPEG file that lacks its end mark but no pixel; return None for any other file."""
    file.seek(0)
    ended = endings(file.read())
    if ended is None:
        return None
    try:
        first = _digest(_decode_quietly(io.BytesIO(ended[0]), how).image)  # one at a time: each may be large
        view = _decode_quietly(io.BytesIO(ended[1]), how)
    except Exception:  # the first error tells the user more
        return None
    return view if _digest(view.image) == first else None


def _digest(image: Image.Image) -> bytes:
    """Return a hash of all pixels of an image."""
    found = hashlib.blake2b(repr((image.mode, image.size)).encode())
    rows = max(1, (1 << 20) // image.width)
    for top in range(0, image.height, rows):
        found.update(image.crop((0, top, image.width, min(image.height, top + rows))).tobytes())
    return found.digest()


def _image_from_array(image: npt.NDArray[Any], name: str) -> Image.Image:
    if image.dtype != np.uint8:
        raise ImageError(
            f"{name} is an array of {image.dtype}, expected uint8. Scale it to 0..255, then use .astype(numpy.uint8)."
        )
    if image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        advice = "Pass gray, RGB or RGBA pixels"
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


def _open(image: EncodedImage, name: str) -> BinaryIO:
    """Open an encoded image as a file at its first byte, for the caller to close."""
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
    if raw.is_raw_name(path) and raw.can_read_raw():  # Pillow would find the smallest picture in it, or none
        with file:
            return raw.preview(file, name)
    if file.seekable():
        return file
    with file:
        return io.BytesIO(file.read())


def _decode(source: Image.Image | BinaryIO, how: Decoding, *, quiet: bool = False) -> View:
    name = how.name
    with _quiet_pillow():
        if isinstance(source, Image.Image):
            image, has_scans = source, False
        else:
            image, has_scans = _identify(source, how)
        width, height = size = image.size
        if min(size) < 1:
            raise ImageError(f"{name} has {width} x {height} pixels, which is none. Leave it out.")
        check_pixels(width, height, name, how.max_pixels)
        if image.mode == "F":
            raise ImageError(f"{name} holds floating-point values of an unknown range. Scale it to 0..255 in 8 bits.")
        margins = NO_MARGINS
        if isinstance(source, Image.Image) or not isinstance(image, ImageFile.ImageFile):
            needed = cost(image, size)
        else:
            margins = NO_MARGINS if how.shrink is None else _draft(image, how.shrink)
            needed = check(image, size, source, name, has_scans=has_scans)
    reserve(needed)  # outside the lock, which the threads that this waits for may need
    if image.format == "TIFF":  # its decoder reads tags, and warns of odd ones
        with _quiet_pillow(), without_messages():
            image.load()
    else:
        with _quiet_pillow() if quiet else contextlib.nullcontext():
            image.load()
    with _quiet_pillow():
        try:
            turn = UPRIGHT.get(image.getexif().get(ExifTags.Base.Orientation, 1))
        except Exception:  # damaged EXIF: the pixels are good, and upright is the best guess
            turn = None
    profile = _profile(image) if how.colors else None
    if image.mode == "CMYK":
        convert, profile = to_srgb(profile, "CMYK"), None
        image = image if convert is None else convert(image)
    image = _flatten(image, name, how.drop_alpha)  # frees the picture before it
    view = View(image, size, margins, profile)
    return view if turn is None else view.turned(*turn)


def _profile(image: Image.Image) -> bytes | None:
    """Return the ICC profile in an image, or None."""
    profile: object = image.info.get("icc_profile")
    return profile if isinstance(profile, bytes) and profile else None


def _draft(image: ImageFile.ImageFile, shrink: Shrink) -> Margins:
    """Set a JPEG to be decoded in fewer pixels, and return the margins of its `View`. Other formats stay whole."""
    if image.format not in ("JPEG", "MPO"):
        return NO_MARGINS
    width, height = image.size
    factor = shrink(width, height)
    drafted = image.draft(None, (max(1, width // factor), max(1, height // factor))) if factor > 1 else None
    if drafted is None:
        return NO_MARGINS
    _, _, right, bottom = drafted[1]
    return 0.0, 0.0, image.width - right, image.height - bottom


def _identify(file: BinaryIO, how: Decoding) -> tuple[ImageFile.ImageFile, bool]:
    """Open an image by its header, and return it with the result of `check_head`.

    `Image.open` is not used: it would try every format it knows, apply the pixel limit of the whole process, and hide
    the cause of a failure behind "cannot identify image file".
    """
    signature = file.read(16)
    if not signature:
        raise ImageError(f"{how.name} is empty (0 bytes). {_GO_ON}")
    for register_formats in (Image.preinit, Image.init, _register_heif):  # common formats first
        register_formats()
        for known in FORMATS:
            factory, accepts = Image.OPEN.get(known, (None, None))
            if factory and accepts and accepts(signature) is True:
                has_scans = check_head(known, file, how.name, how.max_pixels)
                file.seek(0)
                return factory(file, ""), has_scans
    heic = " If it is HEIC: pip install 'clipita[heic]' reads it." if signature[4:8] == b"ftyp" else ""
    raise ImageError(
        f"{how.name} is no image in a known format: it starts with {signature!r}. "
        f"Convert it to one of {', '.join(FORMATS[:-1])}.{heic}"
    )


def _register_heif() -> None:
    """Let Pillow read HEIC, which phones write, if pillow-heif is installed."""
    with contextlib.suppress(ModuleNotFoundError):
        pillow_heif: Any = importlib.import_module("pillow_heif")
        pillow_heif.register_heif_opener()


@contextlib.contextmanager
def _quiet_pillow() -> Generator[None]:
    """Silence Pillow's warnings (odd EXIF, malformed MPO), which under `-W error` would refuse good images.

    Warning filters belong to the process and not to the thread. This therefore holds a lock, and most images are
    decoded outside it (see `_decode_quietly` for the others).
    """
    with _warning_filters, warnings.catch_warnings():
        warnings.filterwarnings("ignore", module=r"PIL\.")
        yield


def _diagnosis(error: Exception, name: str) -> ImageError:
    if isinstance(error, Image.DecompressionBombError):  # the decoders of TIFF and WebP apply Pillow's own limit
        return ImageTooLargeError(f"{name} is too large for Pillow: {_text(error)}. Scale it down first.")
    if isinstance(error, MemoryError):
        return ImageError(f"{name} takes more memory to decode than there is. Scale it down first.")
    if re.search(r"truncated|eof|end of|expected to read|not enough|broken data stream", str(error), re.IGNORECASE):
        return ImageError(f"{name} is truncated: its data end too early ({_text(error)}). {_GO_ON}")
    return ImageError(f"{name} is damaged or incomplete ({_text(error)}). {_GO_ON}")


def _text(error: Exception) -> str:
    text = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return text.rstrip(".") or type(error).__name__


def _flatten(image: Image.Image, name: str, drop_alpha: bool) -> Image.Image:
    """Return an image as opaque "L" or "RGB" in 8 bits. One that is so already is returned itself."""
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
    # round(values / 257), for a band of rows at a time: 65535 / 257 = 255. Values above 65407 give 255, but adding 128
    # to them would overflow.
    gray = np.empty(values.shape, np.uint8)
    rows = max(1, (1 << 20) // values.shape[1])
    for top in range(0, len(values), rows):
        band = values[top : top + rows]
        scaled = np.minimum(band, 65407).astype(np.uint16)
        scaled += 128
        scaled //= 257
        if (transparent := image.info.get("transparency")) is not None:
            scaled[band == transparent] = 255
        gray[top : top + rows] = scaled
    return Image.fromarray(gray)
