"""Find the picture that a camera keeps inside its raw file, by rawpy if it is installed.

Every camera keeps a JPEG beside the values of its sensor, for its own screen; most often it is as large as the whole.
Where it is missing or tiny, the values are developed, in half their size.
"""

import importlib
import importlib.util
import io
import os
from pathlib import Path
from typing import Any, BinaryIO

from PIL import ExifTags, Image

from clipita.errors import ImageError

SUFFIXES = frozenset(
    (
        *(".3fr", ".arw", ".cr2", ".cr3", ".crw", ".dcr", ".dng", ".erf", ".fff", ".gpr", ".iiq", ".k25", ".kdc"),
        *(".mef", ".mos", ".mrw", ".nef", ".nrw", ".orf", ".pef", ".raf", ".raw", ".rw2", ".rwl", ".sr2", ".srf"),
        *(".srw", ".x3f"),
    )
)
_LEAST_SIDE = 256  # pixels of a preview that is worth more than the time of developing
_ORIENTATIONS = {3: 3, 5: 8, 6: 6}  # EXIF's, by LibRaw's `flip`: half a turn, a quarter to the left, to the right


def is_raw_name(path: str | os.PathLike[str]) -> bool:
    """Tell whether a file's name has the ending of a raw file."""
    return Path(path).suffix.lower() in SUFFIXES


def can_read_raw() -> bool:
    """Tell whether rawpy is installed."""
    return importlib.util.find_spec("rawpy") is not None


def preview(file: BinaryIO, name: str) -> BinaryIO:
    """Return the picture inside a raw file as a file of its own, with the orientation and the date in its EXIF.

    Args:
        file: The raw file, at its first byte; it is not closed.
        name: How errors call it.

    Raises:
        ImageError: It cannot be read, or holds no picture.
    """
    rawpy: Any = importlib.import_module("rawpy")
    try:
        with rawpy.imread(file) as raw:
            picture = _preview(rawpy, raw)
            return io.BytesIO(_developed(raw) if picture is None else picture)
    except Exception as error:  # LibRaw's, and whatever damaged files make Pillow stumble over
        raise ImageError(
            f"{name} is no raw file that LibRaw reads, or it is damaged ({str(error) or type(error).__name__}). "
            "Export it as JPEG, or leave it out."
        ) from error


def _preview(rawpy: Any, raw: Any) -> bytes | None:
    """Return the largest preview, or None if there is none that is large enough."""
    try:
        found = raw.extract_thumb()
    except (rawpy.LibRawNoThumbnailError, rawpy.LibRawUnsupportedThumbnailError):
        return None
    if found.format != rawpy.ThumbFormat.JPEG:
        return None
    data = bytes(found.data)
    with Image.open(io.BytesIO(data)) as image:
        if min(image.size) < _LEAST_SIDE:
            return None
        orientation = image.getexif().get(ExifTags.Base.Orientation, _ORIENTATIONS.get(raw.sizes.flip, 1))
    return _with_exif(data, _exif(raw, orientation))


def _developed(raw: Any) -> bytes:
    """Return the picture that the values of the sensor give, upright, as a TIFF."""
    picture = Image.fromarray(raw.postprocess(use_camera_wb=True, half_size=True))
    file = io.BytesIO()
    picture.save(file, "TIFF", exif=_exif(raw, 1))
    return file.getvalue()


def _exif(raw: Any, orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    taken = raw.other.timestamp
    if taken is not None and taken.year > 1970:  # a camera that was never set counts from 1970
        exif[ExifTags.Base.DateTime] = taken.strftime("%Y:%m:%d %H:%M:%S")
    return exif


def _with_exif(jpeg: bytes, exif: Image.Exif) -> bytes:
    """Return a JPEG with that EXIF in place of the one that it begins with, if it does; its pixels are not touched."""
    written = exif.tobytes()  # b"Exif\0\0" is its beginning
    rest = jpeg[2:]
    if rest[:2] == b"\xff\xe1" and rest[4:10] == b"Exif\0\0":
        rest = rest[2 + int.from_bytes(rest[2:4]) :]
    return b"\xff\xd8\xff\xe1" + (2 + len(written)).to_bytes(2) + written + rest
