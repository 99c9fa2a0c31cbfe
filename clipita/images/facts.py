"""Read from the head of a photograph how large it is and when it was taken; no pixel is decoded."""

import datetime
from typing import NamedTuple

from PIL import ExifTags, Image

from clipita.images.decode import EncodedImage, read_header

_EXIF_FORMAT = "%Y:%m:%d %H:%M:%S"
_TURNED_BY_90 = (5, 6, 7, 8)  # values of EXIF's orientation


class PhotoFacts(NamedTuple):
    """Holds what the head of a photograph says.

    Attributes:
        width: In pixels, as the photograph is seen upright.
        height: Likewise.
        taken: When it was taken, by the clock of the camera, whose time zone is not known; None if it is not said.
    """

    width: int
    height: int
    taken: datetime.datetime | None


def read_facts(image: EncodedImage, name: str) -> PhotoFacts:
    """Read the size and the date of a photograph.

    Args:
        image: A path, bytes or an open binary file.
        name: How errors call it.

    Raises:
        ImageError: it is no image in a known format, or its head is damaged.
    """
    (width, height), exif = read_header(image, name)
    if exif.get(ExifTags.Base.Orientation) in _TURNED_BY_90:
        width, height = height, width
    return PhotoFacts(width, height, _taken(exif))


def _taken(exif: Image.Exif) -> datetime.datetime | None:
    """Return when the picture was taken or, of scans and edited files that do not say it, made digital or saved."""
    camera = exif.get_ifd(ExifTags.IFD.Exif)
    for text in (
        camera.get(ExifTags.Base.DateTimeOriginal),
        camera.get(ExifTags.Base.DateTimeDigitized),
        exif.get(ExifTags.Base.DateTime),
    ):
        try:
            return datetime.datetime.strptime(str(text).strip("\0 "), _EXIF_FORMAT)
        except ValueError:  # none, "0000:00:00 00:00:00", or damaged
            continue
    return None
