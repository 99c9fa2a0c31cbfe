"""Limit the memory and time of decoding a picture: small files that would take much are refused by their header.

Every figure is of Pillow's decoders, measured with tests/support/hostile_pictures.py on two cores. A file below 1.2 MB
that is let in takes 1 to 2 s and less than 1 GB. A larger file may take more, in proportion to its bytes, up to the
limit of pixels. A decoder cannot be stopped once it is at work: to limit the time of strangers' large pictures, decode
them in a process of their own.
"""

import io
import re
from typing import Any, BinaryIO

from PIL import Image, ImageFile

from clipita.errors import ImageError, ImageTooLargeError
from clipita.images.avif import coded_sizes
from clipita.images.jpeg import MAX_VISITS, read_head, scans
from clipita.images.jpeg2000 import MAX_STYLES, survey

# Bytes of memory that a picture may take however small its file: 100 megapixels of 4 bytes, 1 to 2 s. If EXIF turns the
# picture, it takes twice as much for a moment.
_FREE = 400_000_000
# A picture may take more if its file has a byte for each of this many pixels, 0.25 bits a pixel. Photographs have 0.5
# bits and more; pictures of one color have fewer, but hardly any has a hundred megapixels.
_PIXELS_A_BYTE = 32
# Run lengths of BMP are decoded in Python, at 170 ns a pixel: any file may take 1 s, and 1.4 µs more for each byte.
_FREE_RUN_LENGTHS, _RUN_LENGTHS_A_BYTE = 6_000_000, 8

# Bytes a pixel by Pillow's mode: of the decoded picture, and of its copy on white in "L" or "RGB".
_BY_MODE = {"1": 2, "L": 1, "P": 5, "RGB": 4, "RGBA": 8, "LA": 12, "PA": 12, "CMYK": 8, "I;16": 5, "I;16B": 5, "I": 9}
_OTHER_MODES = 8  # YCbCr, LAB: 4 decoded, 4 in "RGB"
# The least bytes of a row, however narrow: each intermediate image has a pointer to it, and up to 4 bytes of padding.
_ROW = 48
# Bytes a pixel that decoders take in addition: WebP two canvases of 4 bytes and a copy; AVIF and HEIF a copy, and
# planes of up to 16 bits; GIF a frame to go back to; BMP its unpacked run lengths, twice.
_BY_KIND = {"WEBP": 12, "AVIF": 10, "HEIF": 10, "GIF": 1, "BMP": 2}
_BY_JPEG2000_BAND = 6  # 4 decoded, and a copy
_TIFF_STRIP = {"1": 1, "L": 1, "P": 1}  # by mode; a strip may be as high as the picture
_OTHER_STRIPS = 4

# Each strip or tile of an uncompressed TIFF takes 30 µs. Strips of one row are as many as the rows, at most 65,535 in
# files of scanners. Tiles have at least 16 x 16 pixels, mostly 128 x 128: 178 megapixels are 11,000 of these.
_MAX_PIECES = 65_536
# Pillow reads a PPM's header byte by byte, and copies up to 1 MB for each comment between the numbers.
_MAX_PPM_HEADER = 65_536
_MAX_PPM_COMMENTS = 1_000
# Items and their units together: phones write grids of tiles of 512 x 512, so that 178,956,970 pixels are 683 items of
# 3 units.
_MAX_AVIF_PARTS = 16_384
# Bytes beside the pixels of a JPEG 2000: blocks of 64 x 64, as all encoders write, take 66 million for 178,956,970
# pixels in 3 components.
_MAX_STRUCTURE = 200_000_000
# A tile is decoded in one piece, however small the picture.
_MAX_TILE = 4096 * 4096

_TILE_WIDTH, _TILE_LENGTH = 322, 323
_TRUSTED = "If you trust it, open it with Pillow and pass that image; or export it again."


def check_head(kind: str, file: BinaryIO, name: str, max_pixels: int) -> bool:
    """Refuse a file that Pillow would spend much on by opening it, or whose cost it would not see.

    The position in the file changes.

    Returns:
        Whether the picture is a JPEG in several scans, which is decoded when the last of them is read.

    Raises:
        ImageError: The file is refused.
    """
    file.seek(0)
    match kind:
        case "JPEG":
            head = read_head(file)
            if head.oddity is not None:
                raise ImageError(f"{name} is a JPEG {head.oddity}. {_TRUSTED}")
            return head.has_scans
        case "WEBP":
            _check_webp(file, name, max_pixels)
        case "PPM":
            _check_ppm(file, name)
        case "JPEG2000":
            _check_jpeg2000(file, name)
        case "AVIF":
            _check_avif(file, name, max_pixels)
        case _:
            pass
    return False


def check_pixels(width: int, height: int, name: str, max_pixels: int) -> None:
    """Refuse a picture of more pixels than `max_pixels`, by an `ImageTooLargeError`."""
    if width * height > max_pixels:
        raise ImageTooLargeError(
            f"{name} has {_text(width, height)}, more than the limit of {max_pixels:,}. Scale it down first."
        )


def cost(image: Image.Image, size: tuple[int, int], *, has_scans: bool = False) -> int:
    """Return how many bytes of memory it takes to decode an image and to lay it on white.

    Args:
        image: The image, opened and not decoded; a JPEG may be set to be decoded in fewer pixels.
        size: The width and height in its file, before that.
        has_scans: The result of `check_head`.
    """
    each = _BY_MODE.get(image.mode, _OTHER_MODES)
    if image.mode == "P" and "transparency" in image.info:
        each += 5  # a second copy, and one in "RGBA"
    if image.format == "JPEG2000":
        each += _BY_JPEG2000_BAND * len(image.getbands())
    elif image.format == "TIFF":
        each += _TIFF_STRIP.get(image.mode, _OTHER_STRIPS)
    else:
        each += _BY_KIND.get(image.format or "", 0)
    held = image.height * max(image.width * each, _ROW)
    return held + int(size[0] * size[1] * 2 * _samples(image)) if has_scans else held


def check(image: ImageFile.ImageFile, size: tuple[int, int], file: BinaryIO, name: str, *, has_scans: bool) -> int:
    """Refuse a picture that takes more memory or time than a file of its size may, before it is decoded.

    Returns:
        The picture's `cost`.

    Raises:
        ImageError, ImageTooLargeError: The picture is refused.
    """
    needed = cost(image, size, has_scans=has_scans)
    _check_ratio(_text(*size), size[0] * size[1], needed, file, name)
    if image.format == "BMP" and image.info.get("compression") in (1, 2):
        _check_run_lengths(size[0] * size[1], _length(file), name)
    if has_scans:
        count, visits = scans(_whole(file), *size)
        if visits > MAX_VISITS:
            raise ImageTooLargeError(
                f"{name} is a JPEG of {size[0]} x {size[1]} pixels whose {count:,} scans go over {visits:,} blocks of "
                f"8 x 8, expected {MAX_VISITS:,} at most. {_TRUSTED}"
            )
    if image.format == "TIFF":
        _check_tiff(image, name)
    return needed


def _check_ratio(what: str, pixels: int, needed: int, file: BinaryIO, name: str, ratio: int = _PIXELS_A_BYTE) -> None:
    if needed > _FREE and pixels > ratio * (length := _length(file)):
        raise ImageTooLargeError(
            f"{name} has {what} in {length:,} bytes, and takes {needed / 1e6:,.0f} MB to decode. A file with less than "
            f"a byte for each {_PIXELS_A_BYTE} pixels may take {_FREE / 1e6:,.0f} MB at most. {_TRUSTED}"
        )


def _text(width: int, height: int) -> str:
    return f"{width} x {height} = {width * height:,} pixels"


def _check_run_lengths(pixels: int, length: int, name: str) -> None:
    if pixels > max(_FREE_RUN_LENGTHS, _RUN_LENGTHS_A_BYTE * length):
        raise ImageTooLargeError(
            f"{name} is a BMP of {pixels:,} pixels in {length:,} bytes of run lengths, and takes "
            f"{pixels * 170e-9:.0f} s to decode. A file with less than a byte for each {_RUN_LENGTHS_A_BYTE} pixels "
            f"may have {_FREE_RUN_LENGTHS:,} at most. {_TRUSTED}"
        )


def _samples(image: Any) -> float:
    """Return how many samples all components of a JPEG have together for each pixel."""
    layers: list[tuple[int, int, int, int]] = getattr(image, "layer", [])
    most = max((across for _, across, _, _ in layers), default=1) * max((down for _, _, down, _ in layers), default=1)
    return sum(across * down for _, across, down, _ in layers) / max(1, most)


def _check_tiff(image: Any, name: str) -> None:
    if len(image.tile) > _MAX_PIECES:
        raise ImageTooLargeError(
            f"{name} is a TIFF in {len(image.tile):,} strips or tiles, expected {_MAX_PIECES:,} at most. {_TRUSTED}"
        )
    width, height = (image.tag_v2.get(tag, 0) for tag in (_TILE_WIDTH, _TILE_LENGTH))
    if (
        isinstance(width, int)
        and isinstance(height, int)
        and width * height > max(_MAX_TILE, image.width * image.height)
    ):
        raise ImageTooLargeError(
            f"{name} is a TIFF of {image.width} x {image.height} pixels in tiles of {width} x {height}, expected tiles "
            f"no larger than the picture. {_TRUSTED}"
        )


def _length(file: BinaryIO) -> int:
    position = file.tell()
    length = file.seek(0, 2)
    file.seek(position)
    return length


def _whole(file: BinaryIO) -> bytes:
    if isinstance(file, io.BytesIO):
        return file.getvalue()  # without a copy
    position = file.tell()
    file.seek(0)
    data = file.read()
    file.seek(position)
    return data


def _check_webp(file: BinaryIO, name: str, max_pixels: int) -> None:
    """Refuse a canvas that is too large: Pillow allocates it when it opens the file."""
    head = file.read(30)
    size = _webp_size(head)
    if size is None:  # Pillow reports the cause
        return
    check_pixels(*size, name, max_pixels)
    pixels = size[0] * size[1]
    _check_ratio(_text(*size), pixels, pixels * (_BY_MODE["RGBA"] + _BY_KIND["WEBP"]), file, name)


def _webp_size(head: bytes) -> tuple[int, int] | None:
    """Read width and height from the first chunk, or None if they are not there; RFC 9649, section 2."""
    if len(head) < 30:
        return None
    match head[12:16]:
        case b"VP8X":
            return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
        case b"VP8L":
            bits = int.from_bytes(head[21:25], "little")
            return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
        case _:
            return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


_COMMENT = re.compile(rb"#[^\r\n]*")


def _check_ppm(file: BinaryIO, name: str) -> None:
    head = file.read(_MAX_PPM_HEADER)
    words = _COMMENT.sub(b" ", head).split(None, 4)
    if len(head) == _MAX_PPM_HEADER and len(words) < (3 if head[:2] in (b"P1", b"P4") else 4):
        raise ImageError(
            f"{name} is a PPM whose header does not end within {_MAX_PPM_HEADER:,} bytes. Remove its comments."
        )
    if head[:2] in (b"P1", b"P2", b"P3"):
        comments = head.count(b"#")
        while comments <= _MAX_PPM_COMMENTS and (block := file.read(1 << 20)):
            comments += block.count(b"#")
        if comments > _MAX_PPM_COMMENTS:
            raise ImageError(
                f"{name} is a PPM with more than {_MAX_PPM_COMMENTS:,} comments between its numbers. Remove them."
            )


def _check_jpeg2000(file: BinaryIO, name: str) -> None:
    parts = survey(file.read())
    if parts is not None and parts.styles > MAX_STYLES:
        raise ImageError(f"{name} is a JPEG 2000 in more than {MAX_STYLES} styles of coding. {_TRUSTED}")
    if parts is not None and parts.structure > _MAX_STRUCTURE:
        raise ImageTooLargeError(
            f"{name} is a JPEG 2000 in {parts.tiles:,} tiles, {parts.blocks:,} code blocks, {parts.precincts:,} "
            f"precincts and {parts.packets:,} packets, which count as {parts.structure / 1e6:,.0f} MB beside its "
            f"pixels, expected {_MAX_STRUCTURE / 1e6:,.0f} MB at most. {_TRUSTED}"
        )


def _check_avif(file: BinaryIO, name: str, max_pixels: int) -> None:
    """Refuse pictures inside the container that are too large: they are decoded whatever size it states."""
    data = file.read()
    pixels = needed = 0
    for part, (width, height, each) in enumerate(coded_sizes(data)):
        check_pixels(width, height, name, max_pixels)
        pixels, needed = pixels + width * height, needed + width * height * each
        if part >= _MAX_AVIF_PARTS:
            raise ImageError(f"{name} is an AVIF in more than {_MAX_AVIF_PARTS:,} parts. {_TRUSTED}")
    _check_ratio(f"{pixels:,} pixels coded", pixels, needed, file, name)
