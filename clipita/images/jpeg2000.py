"""Count the parts that a JPEG 2000 picture is cut into, by its markers: a decoder allocates memory for each part.

A few bytes may cut a small picture into precincts of one pixel, or announce 65,535 layers of each. Source: ITU-T T.800,
annexes A and B.
"""

from collections.abc import Iterator
from typing import NamedTuple

_START = b"\xff\x4f\xff\x51"
_COD, _COC, _POC, _SOT, _SOD, _EOC = 0x52, 0x53, 0x5F, 0x90, 0x93, 0xD9
# Markers with a length behind them. Where OpenJPEG finds another marker, it looks for the next of these two bytes on.
_SEGMENTS = frozenset(b"\x50\x51\x52\x53\x55\x57\x58\x59\x5c\x5d\x5e\x5f\x60\x61\x63\x64\x74\x75\x77\x78\x90")

# Bytes that OpenJPEG takes for each part, measured on pictures of 3 million precincts, 0.2 million blocks and 8,836
# tiles. A packet takes 9 bytes, but 70 ns: it counts as the bytes that take as long.
_TILE, _BLOCK, _PRECINCT, _PACKET = 12_000, 500, 600, 70

# The most coding styles of tiles and components; files have one or two.
MAX_STYLES = 256


class Survey(NamedTuple):
    """The number of parts of each kind, and of the styles that they are coded in."""

    tiles: int
    blocks: int
    precincts: int
    packets: int
    styles: int = 0

    @property
    def structure(self) -> int:
        """The bytes that the parts take in addition to the pixels."""
        return self.tiles * _TILE + self.blocks * _BLOCK + self.precincts * _PRECINCT + self.packets * _PACKET


class _Style(NamedTuple):
    """The coding style of a component; `layers` counts its layers once for each order in which packets come."""

    layers: int
    block: tuple[int, int]  # log2 of width and height
    precincts: tuple[tuple[int, int], ...]  # log2 of width and height, from the smallest resolution to the largest


def survey(data: bytes) -> Survey | None:
    """Count the parts of a JP2 file or a codestream; return None if it is damaged before they can be counted.

    If tiles or components differ, all are counted as the one with most parts.
    """
    at = _codestream(data)
    size = data[at + 6 : at + 42]
    if data[at : at + 4] != _START or len(size) < 36:
        return None
    across, down, left, top, tile_across, tile_down, _, _ = (
        int.from_bytes(size[place : place + 4], "big") for place in range(2, 34, 4)
    )
    components = int.from_bytes(size[34:36], "big")
    width, height = across - left, down - top
    if min(width, height, tile_across, tile_down) < 1:
        return None
    tiles = (-(-across // tile_across)) * (-(-down // tile_down))
    width, height = min(width, tile_across), min(height, tile_down)
    most = Survey(tiles, 0, 0, 0)
    styles = set[_Style]()
    for style in _styles(data, at + 2, wide=components > 256):
        styles.add(style)
        if len(styles) > MAX_STYLES:
            break
    for style in styles:
        blocks, precincts, packets = (tiles * components * count for count in _parts(width, height, style))
        most = max(most, Survey(tiles, blocks, precincts, packets), key=lambda one: one.structure)
    return most._replace(styles=len(styles))


def _codestream(data: bytes) -> int:
    """Find the beginning of the codestream: that of the file, or of the first box that holds one."""
    at = 0
    while not data.startswith(_START) and at + 8 <= len(data):
        length, start = int.from_bytes(data[at : at + 4], "big"), at + 8
        if length == 1:
            length, start = int.from_bytes(data[start : start + 8], "big"), start + 8
        if data[at + 4 : at + 8] == b"jp2c":
            return start
        at = at + max(8, length) if length else len(data)
    return at


def _parts(width: int, height: int, style: _Style) -> tuple[int, int, int]:
    """Count the code blocks, precincts and packets of a tile's component."""
    blocks = precincts = packets = 0
    last = len(style.precincts) - 1
    for level, (across, down) in enumerate(style.precincts):
        wide, high = _shrunk(width, last - level), _shrunk(height, last - level)
        count = _shrunk(wide, across) * _shrunk(high, down)
        bands, halved = (3, 1) if level else (1, 0)  # each of the three has half the width and height
        # A block is at most as large as its precinct in the band.
        block_wide, block_high = (
            min(style.block[0], max(0, across - halved)),
            min(style.block[1], max(0, down - halved)),
        )
        in_band = _shrunk(_shrunk(wide, halved), block_wide) * _shrunk(_shrunk(high, halved), block_high)
        blocks += bands * max(count, in_band)
        precincts += bands * count
        packets += count * style.layers
    return blocks, precincts, packets


def _shrunk(length: int, halvings: int) -> int:
    """Return a length in units of 2 ** halvings, rounded up."""
    return -(-length >> halvings)


def _styles(data: bytes, at: int, *, wide: bool) -> Iterator[_Style]:
    """Yield the styles in the main header and in those of all tile parts."""
    layers, orders, start, end = 1, 1, 0, 0
    style: tuple[int, bytes] | None = None
    while at + 4 <= len(data) and data[at] == 0xFF and data[at + 1] != _EOC:
        marker, length = data[at + 1], int.from_bytes(data[at + 2 : at + 4], "big")
        if marker == _SOD:
            at = end if end > start else len(data)
            continue
        body = data[at + 4 : at + 2 + length]
        if marker == _SOT and len(body) >= 8:
            start, end = at, at + int.from_bytes(body[2:6], "big")
        elif marker == _COD and len(body) >= 10:
            layers, style = int.from_bytes(body[2:4], "big"), (body[0], body[5:])
        elif marker == _COC and len(body) >= 7 + wide:
            style = body[1 + wide], body[2 + wide :]
        elif marker == _POC:
            orders += len(body) // 7
        if style is not None and marker in (_COD, _COC, _POC):
            yield _style(layers * orders, *style)
        at += 2 + max(2, length) if marker in _SEGMENTS else 2


def _style(layers: int, flags: int, body: bytes) -> _Style:
    levels = min(body[0], 32)
    given = body[5:] if flags & 1 else b""
    sizes = [given[level] if level < len(given) else 0xFF for level in range(levels + 1)]
    block = (body[1] & 15) + 2, (body[2] & 15) + 2
    return _Style(layers, block, tuple((size & 15, size >> 4) for size in sizes))
