"""Read the markers of JPEG files: oddities of the header, the number of scans, and a missing end.

A transfer that stops a few bytes short leaves a file that every viewer shows whole. Decoders report it just as half a
picture, and fill missing pixels with gray; `endings` finds out whether any pixel is missing.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

START, END = b"\xff\xd8", b"\xff\xd9"

# Bytes that a decoder would take for more of the picture. Behind a complete picture they change no pixel.
_MORE = b"\x55\xaa\x33\x96" * 16

_SCAN = 0xDA
# The most blocks that all scans together may visit: each takes 6 ns even if the scan has no data for it. The 10 scans
# that libjpeg writes visit 13 times the blocks of a component: 36 million for 178,956,970 pixels.
MAX_VISITS = 100_000_000
# Limits before the first scan. Pillow joins EXIF segments one by one, and cameras write one. Other segments are up to
# 256, in a JPEG with 16 MB of depth or of signed history. Bytes between segments are read one by one.
_MAX_EXIF, _MAX_SEGMENTS, _MAX_BETWEEN = 64, 4096, 65_536
_BLOCK = 4096  # bytes of the file that are read at a time

_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_NO_FRAMES = (0xC4, 0xC8, 0xCC)
# A marker with a length behind it. It is no byte 255 of coded data (followed by 0), no fill (255), and no mark alone.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd9\xff]")


def endings(data: bytes) -> tuple[bytes, bytes] | None:
    """Return a JPEG file that has no end mark with two different endings.

    A complete picture decodes to the same pixels with both. If some of it is missing, a decoder makes it up from the
    ending, and the pixels differ.

    Returns:
        The file with each ending; None if it is no JPEG, if it has its end mark, or if it lacks whole scans, so that
        it could only be shown coarser than it was.
    """
    if not data.startswith(START) or data.rstrip(b"\0").endswith(END):
        return None
    data = data[:-1] if data.endswith(b"\xff") else data  # drops half an end mark
    return (data + END, data + _MORE + END) if _has_all_scans(data) else None


def _has_all_scans(data: bytes) -> bool:
    """Tell whether the scans announce every coefficient of every component down to its last bit."""
    components: set[int] = set()
    sent: defaultdict[int, set[int]] = defaultdict(set)
    for marker, body in _segments(data):
        if marker == _SCAN and len(body) >= 1 and len(body) >= 4 + 2 * body[0]:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            if bits & 15 == 0:  # the scan brings the lowest bit
                for component in body[1 : 1 + 2 * count : 2]:
                    sent[component] |= set(range(first, min(last, 63) + 1))
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES and len(body) >= 6:  # a frame
            components |= set(body[6 : 6 + 3 * body[5] : 3])
    return bool(components) and all(len(sent[component]) == 64 for component in components)


class Head(NamedTuple):
    """The findings in a JPEG's header.

    Attributes:
        oddity: A description of something that no camera or program writes and that would take long to read, or None.
        has_scans: Whether the picture comes in several scans, and is decoded when the last of them is read.
    """

    oddity: str | None
    has_scans: bool


def read_head(file: BinaryIO) -> Head:
    """Read the header of a JPEG file, from its start to its first scan."""
    data, start, position, is_progressive = b"", 0, 2, False
    segments = exif = between = components = 0
    while True:
        at = position - start
        if at + 10 > len(data):
            start = file.seek(position)
            data, at = file.read(_BLOCK), 0
            if len(data) < 10:
                return Head(None, False)
        marker = data[at + 1]
        if data[at] != 0xFF or marker in (0, 1, 0xFF) or 0xD0 <= marker <= 0xD9:
            position, between = position + 1, between + 1
        elif marker == _SCAN:
            return Head(None, is_progressive or data[at + 4] < components)
        else:
            if 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES:
                components, is_progressive = data[at + 9], marker in _PROGRESSIVE
            segments, exif = segments + 1, exif + (marker == 0xE1 and data[at + 4 : at + 8] == b"Exif")
            position += 2 + max(2, int.from_bytes(data[at + 2 : at + 4], "big"))
        if exif > _MAX_EXIF:
            return Head(f"with more than {_MAX_EXIF} EXIF segments", False)
        if segments > _MAX_SEGMENTS:
            return Head(f"with more than {_MAX_SEGMENTS:,} segments before its first scan", False)
        if between > _MAX_BETWEEN:
            return Head(f"with more than {_MAX_BETWEEN:,} bytes between its segments", False)


def scans(data: bytes, width: int, height: int) -> tuple[int, int]:
    """Return the number of scans of a JPEG, and an upper bound of the blocks that they visit."""
    blocks = -(-width // 8) * -(-height // 8)
    count = data.count(b"\xff\xda\0")  # the marker, and the first byte of its length
    if count * 4 * blocks <= MAX_VISITS:  # with 4 components in each scan it is few enough: no need to look closer
        return count, count * 4 * blocks
    each = [body[0] for marker, body in _segments(data) if marker == _SCAN and body]
    return len(each), sum(each) * blocks


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each marker with what follows it, past the coded data of scans; ITU-T T.81, annex B."""
    position = 2
    while (found := _MARKER.search(data, position)) is not None:
        start = found.end()
        length = int.from_bytes(data[start : start + 2], "big")
        yield data[start - 1], data[start + 2 : start + length]
        position = start + max(2, length)
