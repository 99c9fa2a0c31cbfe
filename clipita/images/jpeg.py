"""JPEG files by their markers: what is odd about their header, how many scans they have, what they lack at their end.

A transfer that stops a few bytes short leaves a file that every viewer shows whole. Decoders complain of it as they do
of half a picture, and fill what is missing with gray; so whether anything is missing has to be found out otherwise.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from typing import BinaryIO, NamedTuple

START, END = b"\xff\xd8", b"\xff\xd9"

# What a decoder would take for more of the picture. After a picture that is all there, it changes no pixel.
_MORE = b"\x55\xaa\x33\x96" * 16

_SCAN = 0xDA
# Blocks that all scans go over: each takes 6 ns even where the scan says nothing of it. The 10 scans that libjpeg
# writes go over 13 times as many as a component has: 36 million of 178,956,970 pixels.
MAX_VISITS = 100_000_000
# Before the first scan. Pillow joins EXIF segments one by one; cameras write one, a JPEG of 16 MB of depth or of
# signed history 256 of others. What lies between segments it reads byte by byte.
_MAX_EXIF, _MAX_SEGMENTS, _MAX_BETWEEN = 64, 4096, 65_536
_BLOCK = 4096  # of the file at a time

_PROGRESSIVE = (0xC2, 0xC6, 0xCA, 0xCE)
_NO_FRAMES = (0xC4, 0xC8, 0xCC)
# A marker that a length follows: no byte 255 of coded data (0 comes after it), no fill (255), no restart or other mark.
_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd9\xff]")


def endings(data: bytes) -> tuple[bytes, bytes] | None:
    """Return a JPEG file that has no end mark with two different endings.

    A picture that is all there decodes to the same pixels with both. If some of it is missing, a decoder makes it up:
    in the first from nothing, in the second from other data, and the pixels differ.

    Returns:
        The file with each ending; None if it is no JPEG, if it has its end mark, or if it lacks whole scans, so that
        it could only be shown coarser than it was.
    """
    if not data.startswith(START) or data.rstrip(b"\0").endswith(END):
        return None
    data = data[:-1] if data.endswith(b"\xff") else data  # the first half of the end mark
    return (data + END, data + _MORE + END) if _has_all_scans(data) else None


def _has_all_scans(data: bytes) -> bool:
    """Tell whether every coefficient of every component is sent down to its last bit, as scans announce it."""
    components: set[int] = set()
    sent: defaultdict[int, set[int]] = defaultdict(set)
    for marker, body in _segments(data):
        if marker == _SCAN and len(body) >= 1 and len(body) >= 4 + 2 * body[0]:
            count = body[0]
            first, last, bits = body[1 + 2 * count : 4 + 2 * count]
            if bits & 15 == 0:  # the lowest bit that the scan brings
                for component in body[1 : 1 + 2 * count : 2]:
                    sent[component] |= set(range(first, min(last, 63) + 1))
        elif 0xC0 <= marker <= 0xCF and marker not in _NO_FRAMES and len(body) >= 6:  # a frame
            components |= set(body[6 : 6 + 3 * body[5] : 3])
    return bool(components) and all(len(sent[component]) == 64 for component in components)


class Head(NamedTuple):
    """What a JPEG's header says.

    Attributes:
        oddity: What no camera or program writes and would take long to read, or None.
        has_scans: Whether the picture comes in several scans, and is decoded when the last of them is read.
    """

    oddity: str | None
    has_scans: bool


def read_head(file: BinaryIO) -> Head:
    """Read from the start of a file up to its first scan."""
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
    """Count the scans of a JPEG of so many pixels, and the blocks that they go over, at least as many as there are."""
    blocks = -(-width // 8) * -(-height // 8)
    count = data.count(b"\xff\xda\0")  # and the first byte of a length
    if count * 4 * blocks <= MAX_VISITS:  # each of up to 4 components: no need to look closer
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
