"""JPEG files that end too early: which of them lack only their end mark, and which lack a part of their picture.

A transfer that stops a few bytes short leaves a file that every viewer shows whole. Decoders complain of it as they do
of half a picture, and fill what is missing with gray; so whether anything is missing has to be found out otherwise.
"""

import re
from collections import defaultdict
from collections.abc import Iterator

START, END = b"\xff\xd8", b"\xff\xd9"

# What a decoder would take for more of the picture. After a picture that is all there, it changes no pixel.
_MORE = b"\x55\xaa\x33\x96" * 16

_SCAN = 0xDA
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
        elif 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and len(body) >= 6:  # a frame
            components |= set(body[6 : 6 + 3 * body[5] : 3])
    return bool(components) and all(len(sent[component]) == 64 for component in components)


def _segments(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield each marker with what follows it, past the coded data of scans; ITU-T T.81, annex B."""
    position = 2
    while (found := _MARKER.search(data, position)) is not None:
        start = found.end()
        length = int.from_bytes(data[start : start + 2], "big")
        yield data[start - 1], data[start + 2 : start + length]
        position = start + max(2, length)
