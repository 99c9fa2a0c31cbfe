"""Small pictures that cost much: files of every format, 1.2 MB at most, that ask for gigabytes or minutes.

`python -m support.hostile_pictures [NAME...]`, in the folder tests,
decodes each in a process of its own, and prints its bytes, the seconds and
the memory that it took, and what came of it.
"""

import io
import json
import math
import os
import resource
import struct
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clipita.system.memory import give_back

MAX_BYTES = 1_200_000
MAX_SECONDS, MAX_MIB = 2.0, 1024
# So that a decoder that asks for more is refused by the system, and the machine lives on.
ADDRESS_SPACE = 12 << 30
WALL_SECONDS = 90

SIDE = 13_377  # squared, 178,944,129 pixels: just below the limit of all formats
# Bytes a pixel -> the side of the largest square that `clipita.images.bounds` lets in whatever its file.
LARGEST = {each: math.isqrt(400_000_000 // each) for each in range(1, 70)}


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def noise(width: int, height: int, mode: str = "RGB") -> Image.Image:
    bands = len(Image.new(mode, (1, 1)).getbands())
    shape = (height, width, bands) if bands > 1 else (height, width)
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, shape, np.uint8), mode)


# --- PNG


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def zeros(count: int) -> bytes:
    """So many bytes 0, compressed without holding them."""
    packer = zlib.compressobj(9)
    block = bytes(1 << 20)
    parts = [packer.compress(block) for _ in range(count >> 20)]
    return b"".join([*parts, packer.compress(bytes(count & (1 << 20) - 1)), packer.flush()])


PNG_SAMPLES = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))


def png(
    width: int,
    height: int,
    depth: int = 8,
    color: int = 2,
    interlaced: bool = False,
    before: bytes = b"",
    data: bytes | None = None,
    piece: int = 1 << 30,
) -> bytes:
    """A PNG whose pixels are all 0, in pieces of so many bytes."""

    def rows(across: int, down: int) -> int:
        return down * (1 + (across * depth * PNG_SAMPLES[color] + 7) // 8) if across and down else 0

    if data is None:
        passes = [(-(-(width - x) // dx), -(-(height - y) // dy)) for x, y, dx, dy in ADAM7]
        data = zeros(sum(rows(*size) for size in passes) if interlaced else rows(width, height))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))
    palette = chunk(b"PLTE", bytes(range(256)) * 3) + chunk(b"tRNS", bytes(range(256))) if color == 3 else b""
    pieces = b"".join(chunk(b"IDAT", data[start : start + piece]) for start in range(0, len(data), piece))
    return b"\x89PNG\r\n\x1a\n" + head + before + palette + pieces + chunk(b"IEND", b"")


def png_text(count: int) -> bytes:
    return b"".join(chunk(b"zTXt", b"k%d\0\0" % index + zlib.compress(bytes(1_000_000), 9)) for index in range(count))


def png_exif_orientation(value: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = value
    return chunk(b"eXIf", exif.tobytes().removeprefix(b"Exif\0\0"))


def apng(width: int, height: int, frames: int) -> bytes:
    """Frames of the whole canvas, each disposed of to the one before."""
    data = zeros(height * (1 + 4 * width))
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0))
    body = chunk(b"acTL", struct.pack(">II", frames, 0))
    count = 0
    for index in range(frames):
        body += chunk(b"fcTL", struct.pack(">IIIIIHHBB", count, width, height, 0, 0, 1, 1, 2, 1))
        body += chunk(b"fdAT", struct.pack(">I", count + 1) + data) if index else chunk(b"IDAT", data)
        count += 1 + bool(index)
    return b"\x89PNG\r\n\x1a\n" + head + body + chunk(b"IEND", b"")


# --- BMP


def bmp(width: int, height: int, bits: int, compression: int, data: bytes, masks: bytes = b"") -> bytes:
    palette = b"".join(bytes([255 - index, index, 7, 0]) for index in range(1 << bits)) if bits <= 8 else masks
    start = 54 + len(palette)
    head = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(data), 0, 0, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(data), 0, 0, start) + head + palette + data


# --- GIF


def lzw_of_one_color(count: int, bits: int = 8) -> bytes:
    """So many pixels 0: each code stands for one pixel more than the one before, up to 4,096 codes."""
    clear, codes = 1 << bits, list[tuple[int, int]]()
    left = count
    while left > 0:
        width, free, length = bits + 1, clear + 2, 1
        codes.append((clear, width))
        code = 0
        while left > 0 and free <= 4096:
            codes.append((code, width))
            left -= length
            if length > 1 or code == 0:
                free += code != 0
            code, length = (clear + 2, 2) if code == 0 else (code + 1, length + 1)
            if free + 1 > 1 << width and width < 12:
                width += 1
            if code >= 4095:
                break
    codes.append((clear + 1, 12))
    value = place = 0
    out = bytearray()
    for code, width in codes:
        value |= code << place
        place += width
        while place >= 8:
            out.append(value & 255)
            value >>= 8
            place -= 8
    out.append(value & 255)
    return bytes(out)


def gif(
    canvas: tuple[int, int],
    frame: tuple[int, int] | None = None,
    data: bytes = b"\x01\x00",
    transparent: bool = False,
    disposal: int = 0,
    before: bytes = b"",
    interlaced: bool = False,
    frames: int = 1,
) -> bytes:
    frame = frame or canvas
    palette = bytes(range(255, -1, -1)) * 3
    control = b"!\xf9\x04" + bytes([disposal << 2 | transparent, 1, 0, 0, 0])
    blocks = b"".join(bytes([len(data[i : i + 255])]) + data[i : i + 255] for i in range(0, len(data), 255))
    picture = b"," + struct.pack("<HHHHB", 0, 0, *frame, 0x40 * interlaced) + b"\x08" + blocks + b"\0"
    return (
        b"GIF89a" + struct.pack("<HHBBB", *canvas, 0xF7, 0, 0) + palette + before + (control + picture) * frames + b";"
    )


def flat_gif(width: int, height: int, **options: Any) -> bytes:
    """What Pillow's own encoder makes of one color; the same bytes as `gif` takes."""
    small = encoded(Image.new("P", (width, height)), "GIF")
    start = small.index(b",", 13)
    data, place = bytearray(), start + 11
    while small[place]:
        data += small[place + 1 : place + 1 + small[place]]
        place += 1 + small[place]
    return gif((width, height), data=bytes(data), **options)


# --- TIFF


def tiff(
    tags: dict[int, tuple[int, int | list[int]]], data: bytes = b"", byte_tags: dict[int, bytes] | None = None
) -> bytes:
    """A TIFF of one page: tag -> (type, value or values). Places in 273 and 324 count from the start of `data`."""
    start = 8 + len(data) + len(data) % 2
    entries, extra = [], b""
    every: dict[int, tuple[int, int, bytes]] = {}
    for tag, (kind, value) in tags.items():
        values = value if isinstance(value, list) else [value]
        if tag in (273, 324):
            values = [8 + number for number in values]
        every[tag] = kind, len(values), struct.pack(f"<{len(values)}{'?BsHI'[kind]}", *values)
    for tag, raw in (byte_tags or {}).items():
        every[tag] = 7, len(raw), raw
    after = start + 2 + 12 * len(every) + 4
    for tag, (kind, count, raw) in sorted(every.items()):
        if len(raw) > 4:
            entries.append(struct.pack("<HHII", tag, kind, count, after + len(extra)))
            extra += raw + bytes(len(raw) % 2)
        else:
            entries.append(struct.pack("<HHI", tag, kind, count) + raw.ljust(4, b"\0"))
    body = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4) + extra
    return b"II*\0" + struct.pack("<I", start) + data + bytes(len(data) % 2) + body


def tiff_picture(width: int, height: int, compression: int, data: bytes, samples: int = 3, **more: Any) -> bytes:
    """A TIFF in one strip, 8 bits a sample."""
    bits = more.pop("bits", 8)
    tags: dict[int, tuple[int, int | list[int]]] = {
        256: (4, width),
        257: (4, height),
        258: (3, [bits] * samples),
        259: (3, compression),
        262: (3, more.pop("photometric", 2 if samples >= 3 else 1)),
        273: (4, 0),
        277: (3, samples),
        278: (4, height),
        279: (4, len(data)),
    }
    tags |= {338: (3, [2])} if samples == 4 else {}
    return tiff(tags | more.pop("tags", {}), data, **more)


def packbits_zeros(count: int) -> bytes:
    return b"\x81\0" * (count // 128 + 1)


def tiff_by_pillow(width: int, height: int, compression: str, mode: str = "RGB", **options: Any) -> bytes:
    return encoded(Image.new(mode, (width, height)), "TIFF", compression=compression, **options)


# --- WebP


def riff(*chunks: tuple[bytes, bytes]) -> bytes:
    body = b"".join(name + struct.pack("<I", len(data)) + data + bytes(len(data) % 2) for name, data in chunks)
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


def _24(number: int) -> bytes:
    return struct.pack("<I", number)[:3]


def webp_canvas(width: int, height: int, frames: int = 1, size: int = 16) -> bytes:
    """An animation of small frames on a large canvas."""
    part = encoded(Image.new("RGB", (size, size), "red"), "WEBP", lossless=True)[12:]
    frame = bytes(6) + _24(size - 1) * 2 + _24(100) + b"\0" + part
    head = b"\x02\0\0\0" + _24(width - 1) + _24(height - 1)
    return riff((b"VP8X", head), (b"ANIM", bytes(6)), *[(b"ANMF", frame)] * frames)


# --- JPEG


def segment(marker: int, body: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", 2 + len(body)) + body


def jpeg_parts(image: Image.Image, **options: Any) -> tuple[bytes, bytes]:
    """A small JPEG before and after its first start of scan."""
    data = encoded(image, "JPEG", **options)
    at = data.index(b"\xff\xda")
    return data[:at], data[at:]


def jpeg_resized(data: bytes, width: int, height: int) -> bytes:
    """A JPEG that says that it is of another size."""
    at = next(data.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2", b"\xff\xc9", b"\xff\xca") if mark in data)
    return data[: at + 5] + struct.pack(">HH", height, width) + data[at + 9 :]


def scans_of(image: Image.Image, width: int, height: int, count: int, gray: bool = True) -> bytes:
    """A progressive JPEG with so many scans that refine nothing: each says "no more blocks" in a few bytes."""
    head, _ = jpeg_parts(image, progressive=True)
    head = jpeg_resized(head, width, height)
    frame = head.index(b"\xff\xc2")
    tables = head[: frame + 2 + struct.unpack(">H", head[frame + 2 : frame + 4])[0]]
    huffman = segment(0xC4, b"\x00" + bytes([1] + [0] * 15) + b"\0") + segment(
        0xC4, b"\x10" + bytes([1] + [0] * 15) + b"\xe0"
    )
    first = segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + bytes(64)
    more = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bytes(8)
    return tables + huffman + first + more * count + b"\xff\xd9"


def flat_jpeg(width: int, height: int, gray: bool = False, progressive: bool = False, components: int = 3) -> bytes:
    """All blocks gray, 2 bits each; with `progressive` a block costs nearly nothing."""
    mode = "L" if gray else {3: "RGB", 4: "CMYK"}[components]
    small = Image.new(mode, (16, 16), 0)
    head, _ = (
        jpeg_parts(small, progressive=progressive, subsampling=0)
        if not gray
        else jpeg_parts(small, progressive=progressive)
    )
    head = jpeg_resized(head, width, height)
    count = 1 if gray else components
    table = b"".join(segment(0xC4, bytes([kind]) + bytes([1] + [0] * 15) + b"\0") for kind in (0x00, 0x10, 0x01, 0x11))
    if progressive:
        at = head.index(b"\xff\xc2")
        head = head[: at + 2 + struct.unpack(">H", head[at + 2 : at + 4])[0]]
        scan = segment(
            0xDA, bytes([count]) + bytes(v for i in range(count) for v in (_ids(head)[i], 0)) + bytes([0, 0, 0])
        )
        return head + table + scan + bytes(MAX_BYTES - 2000 - len(head)) + b"\xff\xd9"
    at = head.index(b"\xff\xc0")
    head = head[: at + 2 + struct.unpack(">H", head[at + 2 : at + 4])[0]]
    scan = segment(
        0xDA, bytes([count]) + bytes(v for i in range(count) for v in (_ids(head)[i], 0)) + bytes([0, 63, 0])
    )
    blocks = (-(-width // 8)) * (-(-height // 8)) * count
    return head + table + scan + bytes(min(blocks // 4 + 9, MAX_BYTES - 2000 - len(head))) + b"\xff\xd9"


def _ids(head: bytes) -> list[int]:
    at = next(head.index(mark) for mark in (b"\xff\xc0", b"\xff\xc2") if mark in head)
    return [head[at + 10 + 3 * index] for index in range(head[at + 9])]


def mpo(frames: int) -> bytes:
    return encoded(
        Image.new("RGB", (16, 16)), "MPO", save_all=True, append_images=[Image.new("RGB", (16, 16))] * (frames - 1)
    )


def jpeg_with(segments: bytes) -> bytes:
    data = encoded(noise(64, 64), "JPEG")
    return data[:2] + segments + data[2:]


# --- JPEG 2000


def j2k(
    width: int,
    height: int,
    tile: tuple[int, int] | None = None,
    components: int = 3,
    levels: int = 5,
    layers: int = 1,
    block: tuple[int, int] = (4, 4),
    precinct: int | None = None,
    body: bytes = bytes(1000),
    depth: int = 8,
    in_tile: bytes = b"",
    all_tiles: bool = False,
) -> bytes:
    """A codestream whose packets are all empty."""
    tile = tile or (width, height)
    size = (
        struct.pack(">HIIIIIIIIH", 0, width, height, 0, 0, *tile, 0, 0, components)
        + bytes([depth - 1, 1, 1]) * components
    )
    style = bytes([precinct is not None, 0]) + struct.pack(">H", layers) + bytes([0])
    style += bytes([levels, block[0], block[1], 0, 1])
    style += bytes([precinct]) * (levels + 1) if precinct is not None else b""
    quantization = b"\x40" + bytes([0x48] * (3 * levels + 1))
    head = b"\xff\x4f" + segment(0x51, size) + segment(0x52, style) + segment(0x5C, quantization)
    count = (-(-width // tile[0])) * (-(-height // tile[1])) if all_tiles else 1
    part = in_tile + b"\xff\x93" + body
    tiles = b"".join(
        segment(0x90, struct.pack(">HIBB", index, 12 + len(part), 0, 1)) + part for index in range(min(count, 65535))
    )
    return head + tiles + b"\xff\xd9"


def jp2(width: int, height: int, stream: bytes) -> bytes:
    """A JP2 file, of which the header says one size and the codestream another."""

    def box(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", 8 + len(body)) + kind + body

    header = box(b"ihdr", struct.pack(">IIHBBBB", height, width, 3, 7, 7, 0, 0)) + box(b"colr", b"\1\0\0\0\0\0\x10")
    start = box(b"jP  ", b"\r\n\x87\n") + box(b"ftyp", b"jp2 \0\0\0\0jp2 ")
    return start + box(b"jp2h", header) + box(b"jp2c", stream)


# --- AVIF and HEIF: the sizes that the container claims, patched into what an encoder made


def with_claimed_size(data: bytes, width: int, height: int) -> bytes:
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", width, height) + data[at + 8 :]


_cache = Path(tempfile.gettempdir()) / "hostile-pictures"


def slow(name: str, make: Callable[[], bytes]) -> bytes:
    """What takes an encoder seconds is kept between runs."""
    path = _cache / name
    if not path.exists():
        _cache.mkdir(parents=True, exist_ok=True)
        path.write_bytes(make())
    return path.read_bytes()


def flat_avif(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    return slow(
        f"{width}x{height}-{mode}-{'-'.join(map(str, options.values()))}.avif",
        lambda: encoded(Image.new(mode, (width, height)), "AVIF", speed=10, **options),
    )


def flat_webp(width: int, height: int, mode: str = "RGB", **options: Any) -> bytes:
    return slow(
        f"{width}x{height}-{mode}-{'-'.join(map(str, options.values()))}.webp",
        lambda: encoded(Image.new(mode, (width, height)), "WEBP", **options),
    )


def cases() -> Iterator[tuple[str, Callable[[], bytes]]]:
    s = SIDE
    yield "BMP RLE8, end of line", lambda: bmp(178_956_970, 1, 8, 1, b"\1\5\0\0\0\1")
    yield "BMP RLE8, square", lambda: bmp(s, s, 8, 1, b"\1\5\0\0\0\1")
    yield "BMP RLE8, deltas", lambda: bmp(s, s, 8, 1, b"\0\2\xff\xff" * 300 + b"\0\1")
    yield "BMP RLE4, runs", lambda: bmp(s, s, 4, 2, b"\xff\x12" * 500_000 + b"\0\1")
    yield "BMP RLE4, end of lines", lambda: bmp(1 << 16, 2700, 4, 2, b"\1\5\0\0" * 2700 + b"\0\1")
    yield "BMP RLE8, runs", lambda: bmp(s, s, 8, 1, b"\xff\x12" * 500_000 + b"\0\1")
    yield "BMP uncompressed, no data", lambda: bmp(s, s, 24, 0, bytes(100))
    yield "BMP bit fields, no data", lambda: bmp(s, s, 32, 3, bytes(100), struct.pack("<III", 0xFF0000, 0xFF00, 0xFF))
    yield "BMP 1 bit, no data", lambda: bmp(s, s, 1, 0, bytes(1000))
    for color, what in ((2, "RGB"), (6, "RGBA"), (4, "gray and alpha"), (3, "palette with alpha"), (0, "gray")):
        yield f"PNG {what}", lambda color=color: png(s, s, 8, color)
        yield f"PNG {what}, interlaced", lambda color=color: png(s, s, 8, color, interlaced=True)
    yield "PNG RGBA, on its side", lambda: png(s, s, 8, 6, before=png_exif_orientation(6))
    yield "PNG 1 bit", lambda: png(s, s, 1, 0)
    yield "PNG 1 bit, interlaced", lambda: png(s, s, 1, 0, interlaced=True)
    yield "PNG 16 bit gray", lambda: png(s, s, 16, 0)
    yield "PNG 16 bit gray, interlaced", lambda: png(s, s, 16, 0, interlaced=True)
    yield "PNG 16 bit RGBA", lambda: png(s, s, 16, 6)
    yield "PNG 16 bit gray and alpha, interlaced", lambda: png(s, s, 16, 4, interlaced=True)
    yield "PNG interlaced, no data", lambda: png(s, s, 8, 6, interlaced=True, data=zlib.compress(bytes(9)))
    yield "PNG wide", lambda: png(178_956_970, 1, 8, 6)
    yield "PNG of tiny pieces", lambda: png(300, 300, data=zlib.compress(os.urandom(90_300 * 3), 0)[:90_000], piece=1)
    yield "PNG texts", lambda: png(9, 9, before=png_text(64))
    yield "PNG texts, too many", lambda: png(9, 9, before=png_text(1000))
    yield "PNG profile", lambda: png(9, 9, before=chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes(1 << 20), 9)))
    yield "PNG animated", lambda: apng(6000, 6000, 8)
    yield "GIF canvas", lambda: gif((s, s), (1, 1))
    yield "GIF canvas, transparent", lambda: gif((s, s), (1, 1), transparent=True)
    yield "GIF frame beyond its canvas", lambda: gif((1, 1), (s, s), transparent=True, disposal=2)
    yield "GIF frame beyond the limit", lambda: gif((1, 1), (18_000, 18_000), transparent=True, disposal=2)
    yield "GIF full", lambda: slow("full.gif", lambda: flat_gif(s, s, transparent=True))
    yield "GIF full, disposed", lambda: slow("full-disposed.gif", lambda: flat_gif(s, s, transparent=True, disposal=2))
    yield "GIF frames", lambda: gif((4000, 4000), transparent=True, disposal=2, frames=1000)
    yield "GIF extensions", lambda: gif((9, 9), before=b"!\xfe\0" * 390_000)
    yield "GIF comments", lambda: gif((9, 9), before=b"!\xfe\1a\0" * 230_000)
    yield "TIFF Deflate RGB", lambda: tiff_picture(s, s, 8, zeros(s * s * 3))
    yield "TIFF Deflate RGBA", lambda: tiff_picture(s, s, 8, zeros(s * s * 4), 4)
    yield "TIFF Deflate RGBA, on its side", lambda: tiff_picture(s, s, 8, zeros(s * s * 4), 4, tags={274: (3, 6)})
    yield "TIFF Deflate gray", lambda: tiff_picture(s, s, 8, zeros(s * s), 1)
    yield "TIFF Deflate, 16 bit RGB", lambda: tiff_picture(s // 2, s, 8, zeros(s * s * 3), bits=16)
    yield (
        "TIFF Deflate in planes",
        lambda: tiff_picture(
            s, s, 8, zeros(s * s), tags={284: (3, 2), 273: (4, [0] * 3), 279: (4, [len(zeros(s * s))] * 3)}
        ),
    )
    yield "TIFF Deflate YCbCr", lambda: tiff_picture(s, s, 8, zeros(s * s * 3), photometric=6, tags={530: (3, [1, 1])})
    yield "TIFF Deflate CMYK", lambda: tiff_picture(s, s, 8, zeros(s * s * 4), 4, photometric=5, tags={338: (3, [])})
    yield "TIFF LZW", lambda: slow("lzw.tif", lambda: tiff_by_pillow(s, s // 2, "tiff_lzw"))
    yield "TIFF PackBits", lambda: tiff_picture(s, s // 4, 32773, packbits_zeros(s * (s // 4)), 1)
    yield "TIFF Group 4", lambda: slow("g4.tif", lambda: tiff_by_pillow(s, s, "group4", "1"))
    yield "TIFF Group 3", lambda: slow("g3.tif", lambda: tiff_by_pillow(s, s // 8, "group3", "1"))
    yield "TIFF JPEG", lambda: slow("jpeg.tif", lambda: tiff_by_pillow(s, s // 4, "jpeg"))
    yield "TIFF Zstandard", lambda: slow("zstd.tif", lambda: tiff_by_pillow(s, s, "zstd"))
    yield "TIFF LZMA", lambda: slow("lzma.tif", lambda: tiff_by_pillow(s, s, "lzma"))
    yield "TIFF uncompressed, no data", lambda: tiff_picture(s, s, 1, bytes(100))
    yield "TIFF LZW, no data", lambda: tiff_picture(s, s, 5, bytes(100))
    yield (
        "TIFF of tiny tiles",
        lambda: tiff(
            {
                256: (4, 540),
                257: (4, 540),
                258: (3, [8] * 3),
                259: (3, 1),
                262: (3, 2),
                277: (3, 3),
                322: (3, 1),
                323: (3, 1),
            }
            | {324: (4, [0] * 290_000), 325: (3, [3])},
            bytes(9),
        ),
    )
    yield (
        "TIFF of tiny strips",
        lambda: tiff(
            {256: (4, 1), 257: (4, 290_000), 258: (3, [8] * 3), 259: (3, 1), 262: (3, 2), 277: (3, 3), 278: (3, 1)}
            | {273: (4, [0] * 290_000), 279: (3, [3])},
            bytes(9),
        ),
    )
    yield (
        "TIFF of more strips than rows",
        lambda: tiff(
            {256: (4, 100), 257: (4, 100), 258: (3, [8] * 3), 259: (3, 1), 262: (3, 2), 277: (3, 3), 278: (3, 1)}
            | {273: (3, [0] * 590_000), 279: (3, [300])},
            bytes(600),
        ),
    )
    yield (
        "TIFF of a huge tile",
        lambda: tiff(
            {256: (4, 16), 257: (4, 16), 258: (3, [8] * 3), 259: (3, 8), 262: (3, 2), 277: (3, 3), 322: (4, 25_600)}
            | {323: (4, 25_600), 324: (4, 0), 325: (4, 1000)},
            zeros(1 << 20),
        ),
    )
    yield (
        "TIFF of a huge tile, full",
        lambda: tiff(
            {256: (4, 16), 257: (4, 16), 258: (3, [8] * 3), 259: (3, 8), 262: (3, 2), 277: (3, 3), 322: (4, 19_200)}
            | {323: (4, 19_200), 324: (4, 0), 325: (4, len(zeros(19_200 * 19_200 * 3)))},
            zeros(19_200 * 19_200 * 3),
        ),
    )
    yield (
        "TIFF of many libtiff strips",
        lambda: tiff(
            {256: (4, 1), 257: (4, 140_000), 258: (3, [8] * 3), 259: (3, 8), 262: (3, 2), 277: (3, 3), 278: (3, 1)}
            | {273: (4, [0] * 140_000), 279: (4, [11] * 140_000)},
            zlib.compress(bytes(3)),
        ),
    )
    yield (
        "TIFF of rationals",
        lambda: tiff(
            {
                256: (4, 16),
                257: (4, 16),
                258: (3, [8] * 3),
                259: (3, 1),
                262: (3, 2),
                273: (4, 0),
                277: (3, 3),
                278: (4, 16),
            }
            | {279: (4, 768)},
            bytes(768),
            {33_432: bytes(1_100_000)},
        ),
    )
    yield "WebP canvas", lambda: webp_canvas(s, s)
    yield "WebP canvas beyond the limit", lambda: webp_canvas(18_900, 18_900)
    yield "WebP canvas, frames", lambda: webp_canvas(4000, 4000, 5000)
    yield "WebP lossless", lambda: flat_webp(s, s, lossless=True, method=0)
    yield "WebP lossless, alpha", lambda: flat_webp(s, s, "RGBA", lossless=True, method=0)
    yield "WebP lossy", lambda: flat_webp(s, s, method=0)
    yield "WebP lossy, alpha", lambda: flat_webp(s, s, "RGBA", method=0)
    yield "AVIF", lambda: flat_avif(s, s)
    yield "AVIF 4:4:4 with alpha", lambda: flat_avif(s // 2, s, "RGBA", subsampling="4:4:4")
    yield "AVIF that claims 64 x 64", lambda: with_claimed_size(flat_avif(s, s), 64, 64)
    yield "AVIF that claims the limit", lambda: with_claimed_size(flat_avif(64, 64), s, s)
    for gray, progressive, what in (
        (False, False, "RGB"),
        (True, False, "gray"),
        (False, True, "progressive"),
        (True, True, "progressive gray"),
    ):
        yield f"JPEG {what}", lambda gray=gray, progressive=progressive: flat_jpeg(s, s, gray, progressive)
        yield (
            f"JPEG {what}, without its end",
            lambda gray=gray, progressive=progressive: flat_jpeg(s, s, gray, progressive)[:-2],
        )
    yield "JPEG CMYK", lambda: flat_jpeg(s, s, components=4)
    yield "JPEG arithmetic", lambda: flat_jpeg(s, s).replace(b"\xff\xc0", b"\xff\xc9", 1)
    yield "JPEG arithmetic, progressive", lambda: flat_jpeg(s, s, True, True).replace(b"\xff\xc2", b"\xff\xca", 1)
    yield "JPEG of 5,000 scans", lambda: scans_of(Image.new("L", (16, 16)), 2000, 2000, 5000)
    yield "JPEG of 500 scans", lambda: scans_of(Image.new("L", (16, 16)), s, s, 500)
    yield "JPEG of 60,000 scans", lambda: scans_of(Image.new("L", (16, 16)), 16, 16, 60_000)
    yield (
        "JPEG of many EXIF segments",
        lambda: jpeg_with(segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 10 + segment(0xE1, b"Exif\0\0a") * 45_000),
    )
    yield "JPEG of many profile segments", lambda: jpeg_with(segment(0xE2, b"ICC_PROFILE\0\1\xff") * 60_000)
    yield "JPEG of many empty segments", lambda: jpeg_with(segment(0xE3, b"") * 290_000)
    yield "JPEG of many tables", lambda: jpeg_with(segment(0xDB, (b"\0" + bytes([1] * 64)) * 1000) * 18)
    yield "JPEG of fill bytes", lambda: jpeg_with(b"\xff" * 1_100_000)
    yield "JPEG of many restarts", lambda: jpeg_with(b"")[:-2] + b"\xff\xd0" * 500_000 + b"\xff\xd9"
    yield "JPEG of junk", lambda: jpeg_with(segment(0xFE, b"a") + b"\0" * 1_100_000)
    yield "MPO of 1,000 frames", lambda: mpo(1000)
    yield "JPEG 2000", lambda: j2k(s, s)
    yield "JPEG 2000 gray", lambda: j2k(s, s, components=1)
    yield "JPEG 2000, no wavelets", lambda: j2k(s, s, levels=0)
    yield "JPEG 2000 of 32 levels", lambda: j2k(s, s, levels=32)
    yield "JPEG 2000 of tiles", lambda: j2k(s, s, tile=(53, 53), body=bytes(6), all_tiles=True)
    yield "JPEG 2000 of small code blocks", lambda: j2k(5000, 5000, block=(0, 0))
    yield "JPEG 2000 of small precincts", lambda: j2k(3000, 3000, precinct=0x11)
    yield "JPEG 2000 of one level of tiny precincts", lambda: j2k(2000, 2000, precinct=0x00, levels=1)
    yield "JPEG 2000 of 65,535 layers", lambda: j2k(600, 600, layers=65_535, body=bytes(1_100_000))
    yield "JPEG 2000 of layers and precincts", lambda: j2k(600, 600, layers=65_535, precinct=0x55)
    yield "JPEG 2000 of layers and levels", lambda: j2k(3000, 3000, layers=65_535, levels=32, body=bytes(1_100_000))
    yield "JPEG 2000, another size inside", lambda: jp2(16, 16, j2k(s, s))
    yield "JPEG 2000, smaller inside", lambda: jp2(s, s, j2k(16, 16))
    yield (
        "JPEG 2000 of small precincts in a tile",
        lambda: j2k(3000, 3000, in_tile=segment(0x52, bytes([1, 0, 0, 1, 0, 5, 4, 4, 0, 1]) + bytes([0x11] * 6))),
    )
    yield "JPEG 2000 of 38 bits", lambda: j2k(s, s, depth=16)
    yield "PPM without data", lambda: b"P6 %d %d 255\n" % (s, s)
    yield "PPM without data, 1,023 levels", lambda: b"P6 %d %d 1023\n" % (s, s)
    yield "PGM of 200 levels", lambda: b"P5 1090 1090 200\n" + bytes(1090 * 1090)
    yield "PBM without data", lambda: b"P4 %d %d\n" % (s, s)
    yield "PBM in text", lambda: b"P1 1090 1090\n" + b"1" * 1_180_000
    yield "PPM in text", lambda: b"P3 440 440 255\n" + b"0 " * 590_000
    yield "PPM in text, 16 bit gray", lambda: b"P2 760 760 65535\n" + b"0 " * 590_000
    yield "PPM in text, without data", lambda: b"P3 %d %d 255\n0 0 0" % (s, s)
    yield "PPM of comments", lambda: b"P3 9 9 255\n" + b"#\n" * 590_000 + b"0 " * 243
    yield "PBM of comments", lambda: b"P1 9 9\n" + b"#\n" * 590_000 + b"0 " * 81
    yield "PPM of comments before its size", lambda: b"P6\n" + b"#\n" * 590_000 + b"9 9 255\n" + bytes(243)
    yield "PPM of one long comment", lambda: b"P6\n#" + b"a" * 1_190_000 + b"\n9 9 255\n" + bytes(243)
    yield "PPM of spaces", lambda: b"P3 9 9 255\n" + b" " * 1_190_000 + b"0 " * 243
    yield "PPM of one long number", lambda: b"P3 9 9 255\n" + b"0" * 1_190_000
    yield "PFM", lambda: b"Pf %d %d -1.0\n" % (s, s)
    yield from largest()
    if find_heif():
        yield from heif_cases()


def largest() -> Iterator[tuple[str, Callable[[], bytes]]]:
    """As large as is just let in."""
    for color, each, what in ((2, 4, "RGB"), (6, 8, "RGBA"), (4, 12, "gray and alpha"), (3, 10, "palette with alpha")):
        for interlaced in (False, True):
            name = f"largest PNG {what}{', interlaced' * interlaced}"
            yield name, lambda s=LARGEST[each], color=color, way=interlaced: png(s, s, 8, color, interlaced=way)
    yield "largest PNG RGB, on its side", lambda s=LARGEST[4]: png(s, s, 8, 2, before=png_exif_orientation(6))
    yield "largest PNG RGBA, on its side", lambda s=LARGEST[8]: png(s, s, 8, 6, before=png_exif_orientation(6))
    yield "largest PNG 16 bit gray", lambda s=LARGEST[5]: png(s, s, 16, 0)
    yield "largest BMP RLE8", lambda: bmp(6_000_000, 1, 8, 1, b"\1\5\0\0\0\1")
    yield "largest GIF", lambda s=LARGEST[11]: gif((s, s), (1, 1), transparent=True)
    yield (
        "largest GIF, full",
        lambda s=LARGEST[11]: slow("largest.gif", lambda: flat_gif(s, s, transparent=True, disposal=2)),
    )
    yield "largest TIFF RGB", lambda s=LARGEST[8]: tiff_picture(s, s, 8, zeros(s * s * 3))
    yield (
        "largest TIFF RGBA on its side",
        lambda s=LARGEST[12]: tiff_picture(s, s, 8, zeros(s * s * 4), 4, tags={274: (3, 6)}),
    )
    yield (
        "largest TIFF in planes",
        lambda s=LARGEST[8]: tiff_picture(
            s, s, 8, zeros(s * s), tags={284: (3, 2), 273: (4, [0] * 3), 279: (4, [len(zeros(s * s))] * 3)}
        ),
    )
    yield "largest TIFF LZMA", lambda s=LARGEST[8]: slow("largest-lzma.tif", lambda: tiff_by_pillow(s, s, "lzma"))
    yield (
        "largest TIFF of tiny tiles",
        lambda: tiff(
            {256: (4, 256), 257: (4, 256), 258: (3, [8] * 3), 259: (3, 1), 262: (3, 2), 277: (3, 3), 322: (3, 1)}
            | {323: (3, 1), 324: (4, [0] * 65_536), 325: (3, [3])},
            bytes(9),
        ),
    )
    yield (
        "largest TIFF tile",
        lambda: tiff(
            {256: (4, 16), 257: (4, 16), 258: (3, [8] * 3), 259: (3, 8), 262: (3, 2), 277: (3, 3), 322: (4, 4096)}
            | {323: (4, 4096), 324: (4, 0), 325: (4, len(zeros(4096 * 4096 * 3)))},
            zeros(4096 * 4096 * 3),
        ),
    )
    yield "largest WebP canvas", lambda s=LARGEST[20]: webp_canvas(s, s)
    yield "largest WebP lossy with alpha", lambda s=LARGEST[20]: flat_webp(s, s, "RGBA", method=0)
    yield "largest AVIF", lambda s=LARGEST[14]: flat_avif(s, s)
    yield "largest AVIF 4:4:4 with alpha", lambda s=LARGEST[18]: flat_avif(s, s, "RGBA", subsampling="4:4:4")
    yield "largest AVIF that claims 64 x 64", lambda s=LARGEST[3]: with_claimed_size(flat_avif(s, s), 64, 64)
    yield "largest JPEG progressive", lambda s=LARGEST[7]: flat_jpeg(s, s, progressive=True)
    yield "largest JPEG of scans", lambda: scans_of(Image.new("L", (16, 16)), SIDE, SIDE, 33)
    yield "largest JPEG 2000", lambda s=LARGEST[22]: j2k(s, s)
    yield "largest JPEG 2000 gray", lambda s=LARGEST[7]: j2k(s, s, components=1)
    yield "largest JPEG 2000 of small code blocks", lambda: j2k(2000, 1000, block=(0, 0))
    yield "largest JPEG 2000 of small precincts", lambda: j2k(220, 220, precinct=0x11)
    yield "largest JPEG 2000 of layers", lambda: j2k(600, 600, layers=600, precinct=0x55)
    yield "largest JPEG 2000 of tiles", lambda: j2k(1500, 1500, tile=(32, 32), body=bytes(6), all_tiles=True)


def find_heif() -> bool:
    try:
        import pillow_heif
    except ModuleNotFoundError:
        return False
    pillow_heif.register_heif_opener()
    return True


def flat_heif(width: int, height: int, mode: str = "RGB") -> bytes:
    return slow(f"{width}x{height}-{mode}.heic", lambda: encoded(Image.new(mode, (width, height)), "HEIF", quality=10))


def heif_cases() -> Iterator[tuple[str, Callable[[], bytes]]]:
    yield "HEIF", lambda: flat_heif(8192, 8192)
    yield "largest HEIF", lambda s=LARGEST[14]: flat_heif(s, s)
    yield "largest HEIF with alpha", lambda s=LARGEST[18]: flat_heif(s, s, "RGBA")
    yield "HEIF with alpha", lambda: flat_heif(6000, 6000, "RGBA")
    yield "HEIF that claims 64 x 64", lambda: with_claimed_size(flat_heif(8192, 8192), 64, 64)
    yield "HEIF that claims the limit", lambda: with_claimed_size(flat_heif(64, 64), SIDE, SIDE)


@dataclass(frozen=True)
class Outcome:
    """What came of a picture: "read", or the error; the growth of the peak of memory; the seconds."""

    result: str
    mib: int
    seconds: float


def peak_mib() -> int:
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) // 1024


def attempt(data: bytes, read: Callable[[bytes], object]) -> Outcome:
    """Read a picture in a fork of this process, which must have imported what it needs and started no thread."""
    give_back()  # or the child would reuse what its parent freed, and its peak would not show it
    receiving, sending = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(receiving)
        resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
        resource.setrlimit(resource.RLIMIT_CPU, (WALL_SECONDS, WALL_SECONDS))
        Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
        before, start = peak_mib(), time.process_time()
        try:
            read(data)
            result = "read"
        except BaseException as error:
            result = f"{type(error).__name__}: {error}"
        answer = result[:400], peak_mib() - before, time.process_time() - start
        os.write(sending, json.dumps(answer).encode())
        os._exit(0)
    os.close(sending)
    with os.fdopen(receiving, "rb") as pipe:
        answer = pipe.read()
    _, status = os.waitpid(child, 0)
    return Outcome(*json.loads(answer)) if answer else Outcome(f"the process ended with status {status}", 0, 0.0)


def as_tower(data: bytes, exact: bool = False) -> object:
    from clipita.images.pixels import Preprocessing, load_pixels

    preprocessing = Preprocessing(224, "shortest", "bicubic", (127.0,) * 3, (128.0,) * 3)
    return load_pixels(data, preprocessing, name="the image", exact=exact)


def main() -> None:
    from PIL import Image as Pillow

    import clipita.images.pixels  # noqa: F401 (before the fork)

    Pillow.init()
    wanted = [word for word in sys.argv[1:] if word != "--exact"]
    exact = "--exact" in sys.argv
    print("| picture | bytes | s | MiB | what came |\n|---|---|---|---|---|")
    for name, make in cases():
        if wanted and not any(word.lower() in name.lower() for word in wanted):
            continue
        data = make()
        outcome = attempt(data, lambda data: as_tower(data, exact))
        print(
            f"| {name} | {len(data):,} | {outcome.seconds:.2f} | {outcome.mib} | {outcome.result[:150]} |", flush=True
        )


if __name__ == "__main__":
    main()
