"""Find the sizes of the pictures inside AVIF files, which may differ from the size that the container states.

A decoder allocates memory for the pictures inside, and then scales them to the container's size. Sources: AV1 bitstream
specification, sections 5.3 to 5.5; ISO/IEC 14496-12, "iloc" and "stco".
"""

import re
from collections.abc import Iterator

_SEQUENCE_HEADER, _FRAMES = 1, (3, 6)
_NOTHING = (0, 0, 0)
# The boxes with the places of pictures. They are found by their names, however deep they are nested.
_PLACES = re.compile(rb"iloc|stco|co64")


def coded_sizes(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield the width, the height and the bytes a pixel of each picture inside a file, as far as it can be read.

    All items are read, since a picture may be put together from many. In tracks, which are animations, only the part
    before the first frame is read. Every other unit that is passed yields zeros, so that the caller can count and stop:
    a small file may point to the same bytes many times.
    """
    for found in _PLACES.finditer(data):
        yield _NOTHING
        if found.group() == b"iloc":
            for item in _items(data, found.end()):
                yield _NOTHING
                for _, size in _units(item):
                    yield size
        else:
            at, width = found.end() + 8, 4 if found.group() == b"stco" else 8
            for kind, size in _units(memoryview(data)[int.from_bytes(data[at : at + width], "big") :]):
                yield size
                if kind in _FRAMES:
                    break


def _items(data: bytes, at: int) -> Iterator[memoryview]:
    """Yield each item, put together from the parts that the box "iloc" lists."""
    version = data[at : at + 1]
    if version not in (b"\0", b"\1", b"\2") or at + 8 > len(data):
        return
    offset_size, length_size, base_size = data[at + 4] >> 4, data[at + 4] & 15, data[at + 5] >> 4
    index_size = data[at + 5] & 15 if version != b"\0" else 0
    wide = 4 if version == b"\2" else 2
    inside = data.find(b"idat") + 4
    whole = memoryview(data)
    position = at + 6

    def number(size: int) -> int:
        nonlocal position
        position += size
        return int.from_bytes(data[position - size : position], "big")

    for _ in range(number(wide)):
        if position > len(data):
            return
        number(wide)  # its id
        is_inside = version != b"\0" and number(2) & 15 == 1
        number(2)
        base = number(base_size) + is_inside * inside
        parts: list[memoryview] = []
        for _ in range(number(2)):
            number(index_size)
            start, length = base + number(offset_size), number(length_size)
            parts.append(whole[start : start + length if length else None])
            yield whole[:0]  # stands for one more entry, so that the caller can count
            if position > len(data):
                return
        if parts and sum(map(len, parts)) <= len(data):  # otherwise the parts overlap, which a valid file never needs
            yield parts[0] if len(parts) == 1 else memoryview(b"".join(parts))


def _units(data: memoryview) -> Iterator[tuple[int, tuple[int, int, int]]]:
    """Yield the kind of each unit of a stream, with the figures of `_sequence` for a sequence header, else zeros."""
    at = 0
    while at + 2 <= len(data) and not data[at] & 0x81 and data[at] & 2:  # nothing reserved, and a length
        kind, start = data[at] >> 3 & 15, at + 1 + (data[at] >> 2 & 1)
        length = shift = 0
        while start < len(data) and shift < 35:
            byte = data[start]
            length, shift, start = length | (byte & 127) << shift, shift + 7, start + 1
            if byte < 128:
                break
        body = bytes(data[start : start + min(length, 1024)]) if kind == _SEQUENCE_HEADER else b""
        yield kind, _sequence(body) or _NOTHING
        at = start + length


def _sequence(body: bytes) -> tuple[int, int, int] | None:
    """Read the largest width and height and the bytes a pixel from a sequence header; AV1, 5.5.1."""
    bits, place = int.from_bytes(body, "big"), 8 * len(body)

    def read(count: int) -> int:
        nonlocal place
        place -= count
        if place < 0:
            raise EOFError
        return bits >> place & (1 << count) - 1

    try:
        profile, _, reduced = read(3), read(1), read(1)
        if reduced:
            read(5)
        else:
            model = 0
            delays = 0
            if read(1):  # timing
                read(64)
                if read(1):  # equal intervals, by a number of variable length
                    zeros = 0
                    while not read(1) and zeros < 32:
                        zeros += 1
                    read(min(zeros, 31))
                model = read(1)
                if model:
                    delays = read(5) + 1
                    read(42)
            shown = read(1)
            for _ in range(read(5) + 1):
                read(12)
                if read(5) > 7:
                    read(1)
                if model and read(1):
                    read(2 * delays + 1)
                if shown and read(1):
                    read(4)
        wide, high = read(4) + 1, read(4) + 1
        width, height = read(wide) + 1, read(high) + 1
    except EOFError:
        return None
    return width, height, 6 if profile else 3
