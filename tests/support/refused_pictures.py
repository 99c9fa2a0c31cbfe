"""Make small pictures that are refused from their header, each with the message that says why."""

from collections.abc import Callable

from PIL import Image

from support.hostile_pictures import (
    bmp,
    encoded,
    gif,
    j2k,
    jp2,
    jpeg_parts,
    jpeg_with,
    noise,
    png,
    scans_of,
    segment,
    tiff,
    tiff_picture,
    webp_canvas,
    with_claimed_size,
)

SIDE = 13_377  # squared, just below the limit of all formats
TILES: dict[int, tuple[int, int | list[int]]] = {
    258: (3, [8] * 3),
    259: (3, 1),
    262: (3, 2),
    277: (3, 3),
    322: (3, 1),
    323: (3, 1),
    325: (3, [3]),
}
TRUSTED = "If you trust it, open it with Pillow and pass that image; or export it again."
MORE = r"the image has .* pixels in [\d,]+ bytes, and takes [\d,]+ MB to decode. A file with less than a byte for "
MORE += r"each 32 pixels may take 400 MB at most. " + TRUSTED


def coded_larger() -> bytes:
    """An AVIF that claims 64 x 64 pixels, and says inside that it has up to 32,768 x 8,192."""
    data = bytearray(encoded(Image.new("RGB", (64, 64)), "AVIF"))
    at = data.index(b"\x0a", data.index(b"mdat") + 4)
    body = int.from_bytes(data[at + 2 : at + 2 + data[at + 1]], "big")
    bits = f"{body:0{8 * data[at + 1]}b}"
    assert bits[:5] == "00011"  # profile 0, a still picture, a reduced header; then 5 bits of level
    reduced = bits[:10] + "1110" + "1100" + "1" * 15 + "1" * 13 + bits[30:]
    body = reduced[: len(reduced) // 8 * 8]
    data[at : at + 2 + data[at + 1]] = bytes([0x0A, len(body) // 8]) + int(body, 2).to_bytes(len(body) // 8, "big")
    return bytes(data)


AVIF = encoded(Image.new("RGB", (64, 64)), "AVIF")
FRAME = jpeg_parts(noise(64, 64), progressive=True)  # what is between them comes after the frame's header
REFUSED: dict[str, tuple[Callable[[], bytes], str]] = {
    "BMP, run lengths in one line": (
        lambda: bmp(99_000_000, 1, 4, 2, b"\1\5\0\0\0\1"),
        MORE,
    ),
    "BMP, run lengths": (
        lambda: bmp(10_000_000, 1, 8, 1, b"\1\5\0\0\0\1"),
        "the image is a BMP of 10,000,000 pixels in 1,084 bytes of run lengths, and takes 2 s to decode. A file with "
        "less than a byte for each 8 pixels may have 6,000,000 at most. " + TRUSTED,
    ),
    "BMP, run lengths in many": (lambda: bmp(1 << 16, 2700, 4, 2, b"\1\5\0\0" * 2700 + b"\0\1"), MORE),
    "BMP without data": (lambda: bmp(SIDE, SIDE, 24, 0, bytes(100)), MORE),
    "PNG": (lambda: png(SIDE, SIDE, 8, 6, data=b"a"), MORE),
    "PNG, interlaced": (lambda: png(SIDE, SIDE, 8, 4, interlaced=True, data=b"a"), MORE),
    "PNG of one line": (lambda: png(178_956_970, 1, 8, 2, data=b"a"), MORE),
    "PNG of one column": (lambda: png(1, 83_936_773, 1, 0, data=b"a"), MORE),
    "GIF": (lambda: gif((SIDE, SIDE), (1, 1), transparent=True), MORE),
    "GIF, a frame beyond its canvas": (lambda: gif((1, 1), (SIDE, SIDE), disposal=2), MORE),
    "TIFF": (lambda: tiff_picture(SIDE, SIDE, 8, bytes(100)), MORE),
    "TIFF on its side": (lambda: tiff_picture(SIDE, SIDE, 5, bytes(100), 4, tags={274: (3, 6)}), MORE),
    "TIFF of tiny tiles": (
        lambda: tiff(TILES | {256: (4, 300), 257: (4, 300), 324: (4, [0] * 90_000)}, bytes(9)),
        "the image is a TIFF in 90,000 strips or tiles, expected 65,536 at most. " + TRUSTED,
    ),
    "TIFF of a huge tile": (
        lambda: tiff(TILES | {256: (4, 16), 257: (4, 16), 322: (4, 25_600), 323: (4, 25_600), 324: (4, 0)}, bytes(9)),
        "the image is a TIFF of 16 x 16 pixels in tiles of 25600 x 25600, expected tiles no larger than the picture",
    ),
    "WebP canvas": (lambda: webp_canvas(SIDE, SIDE), MORE),
    "WebP canvas above the limit": (lambda: webp_canvas(18_900, 18_900), "357,210,000 pixels, more than the limit of"),
    "AVIF": (lambda: with_claimed_size(encoded(Image.new("RGB", (64, 64)), "AVIF"), SIDE, SIDE), MORE),
    "AVIF, larger inside": (coded_larger, "has 32768 x 8192 = 268,435,456 pixels, more than the limit of 178,956,970"),
    "AVIF of places": (lambda: AVIF + b"iloc" * 90_000, "the image is an AVIF in more than 16,384 parts. " + TRUSTED),
    "AVIF of items without end": (
        lambda: AVIF + b"iloc\2\0\0\0\0\0" + b"\xff" * 4 + bytes(10) + (b"\0\0\0\1\0\0\0\0\xff\xff" * 30_000),
        "the image is an AVIF in more than 16,384 parts",
    ),
    "JPEG, progressive": (lambda: scans_of(Image.new("L", (16, 16)), 12_000, 8_000, 300), "301 scans go over"),
    "JPEG of many scans": (
        lambda: scans_of(Image.new("L", (16, 16)), 2000, 2000, 5000),
        "the image is a JPEG of 2000 x 2000 pixels whose 5,001 scans go over 312,562,500 blocks of 8 x 8, expected "
        "100,000,000 at most. " + TRUSTED,
    ),
    "JPEG of EXIF": (
        lambda: jpeg_with(segment(0xE1, b"Exif\0\0a") * 65),
        "the image is a JPEG with more than 64 EXIF segments. " + TRUSTED,
    ),
    "JPEG of EXIF, progressive": (
        lambda: FRAME[0] + segment(0xE1, b"Exif\0\0a") * 65 + FRAME[1],
        "the image is a JPEG with more than 64 EXIF segments",
    ),
    "JPEG of segments": (
        lambda: jpeg_with(segment(0xE3, b"") * 4097),
        "the image is a JPEG with more than 4,096 segments before its first scan. " + TRUSTED,
    ),
    "JPEG of fill bytes": (
        lambda: jpeg_with(b"\xff" * 70_000),
        "the image is a JPEG with more than 65,536 bytes between its segments. " + TRUSTED,
    ),
    "JPEG 2000": (lambda: j2k(SIDE, SIDE), MORE),
    "JPEG 2000 of tiny precincts": (
        lambda: j2k(1000, 1000, precinct=0x11),
        r"JPEG 2000 in 1 tiles, [\d,]+ code blocks, [\d,]+ precincts and [\d,]+ packets, which count as [\d,]+ MB "
        "beside its pixels, expected 200 MB at most. " + TRUSTED,
    ),
    "JPEG 2000 of precincts in a tile": (
        lambda: j2k(1000, 1000, in_tile=segment(0x52, bytes([1, 0, 0, 1, 0, 5, 4, 4, 0, 1]) + bytes([0x11] * 6))),
        "JPEG 2000 in 1 tiles",
    ),
    "JPEG 2000 of layers": (lambda: j2k(600, 600, layers=65_535, precinct=0x55), "JPEG 2000 in 1 tiles"),
    "JPEG 2000 of blocks": (lambda: j2k(4000, 4000, block=(0, 0)), "JPEG 2000 in 1 tiles"),
    "JPEG 2000 of tiles": (lambda: j2k(5000, 5000, tile=(25, 25)), "JPEG 2000 in 40,000 tiles"),
    "JPEG 2000 of styles": (
        lambda: j2k(
            99, 99, in_tile=b"".join(segment(0x53, bytes([0, 0, m, n, 3, 0, 1])) for n in range(9) for m in range(33))
        ),
        "the image is a JPEG 2000 in more than 256 styles of coding. " + TRUSTED,
    ),
    "JPEG 2000 behind an unknown mark": (
        lambda: j2k(1000, 1000, precinct=0x11).replace(b"\xff\x52", b"\xff\x30\xff\x52", 1),
        "JPEG 2000 in 1 tiles",
    ),
    "JPEG 2000 in boxes": (lambda: jp2(1000, 1000, j2k(1000, 1000, precinct=0x11)), "JPEG 2000 in 1 tiles"),
    "PPM of comments": (
        lambda: b"P3 9 9 255\n" + b"#\n" * 1001 + b"0 " * 243,
        "the image is a PPM with more than 1,000 comments between its numbers. Remove them.",
    ),
    "PPM of a long comment": (
        lambda: b"P6\n#" + b"a" * 70_000 + b"\n9 9 255\n" + bytes(243),
        "the image is a PPM whose header does not end within 65,536 bytes. Remove its comments.",
    ),
    "PPM without data": (lambda: b"P6 %d %d 255\n" % (SIDE, SIDE), MORE),
    "PFM": (lambda: b"Pf %d %d -1.0\n" % (SIDE, SIDE), "holds floating-point values"),
}
