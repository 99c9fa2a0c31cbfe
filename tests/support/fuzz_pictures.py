"""Small pictures of every format, damaged at random: pixels or ImageError, in little time and memory.

`python -m support.fuzz_pictures COUNT [SEED]`, in the folder tests,
tries so many, shared out among the formats, and prints what came of them.
What it finds it writes to `fuzz-*` in the working directory, with the seed that makes it again. Of 50,000 that
takes ten minutes on a core.
"""

import json
import mmap
import os
import random
import resource
import struct
import sys
import time
import zlib
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from clipita.errors import ImageError
from support.fuzz_readers import NUMBERS, damaged
from support.hostile_pictures import (
    apng,
    as_tower,
    bmp,
    chunk,
    encoded,
    find_heif,
    flat_jpeg,
    gif,
    j2k,
    jp2,
    jpeg_with,
    noise,
    png,
    scans_of,
    segment,
    tiff_picture,
    webp_canvas,
    with_claimed_size,
    zeros,
)

MAX_SECONDS, MAX_MIB = 2.0, 1024
ADDRESS_SPACE = 6 << 30


@dataclass(frozen=True)
class Format:
    """Good pictures of a format, what makes others from numbers, and what is put right after damage."""

    seeds: tuple[bytes, ...]
    make: Callable[[random.Random], bytes] | None = None
    mend: Callable[[bytes], bytes] = bytes


def formats() -> dict[str, Format]:
    color, gray = noise(19, 13), noise(19, 13, "L")
    alpha, palette = noise(19, 13, "RGBA"), noise(19, 13).quantize(16)
    pages: dict[str, Any] = {"save_all": True, "append_images": [noise(19, 13)]}
    exif = Image.Exif()
    exif[0x0112] = 6
    tiffs = [
        encoded(image, "TIFF", **({"compression": way} if way else {}))
        for way in ("", "tiff_lzw", "tiff_adobe_deflate", "packbits", "zstd", "lzma")
        for image in (color, gray, alpha)
    ]
    tiffs += [encoded(gray.convert("1"), "TIFF", compression=way) for way in ("group3", "group4", "tiff_ccitt")]
    tiffs += [encoded(color, "TIFF", compression="jpeg"), encoded(color, "TIFF", **pages)]
    levels = Image.linear_gradient("L").resize((19, 13)).convert("I;16")
    runs = b"\5\1\0\4\1\2\3\4\0\0" * 3 + b"\0\2\3\1\3\7\0\0\0\1"
    found = {
        "JPEG": Format(
            (
                encoded(color, "JPEG"),
                encoded(gray, "JPEG", exif=exif),
                encoded(color, "JPEG", progressive=True, subsampling=0),
                encoded(color.convert("CMYK"), "JPEG"),
                encoded(color, "MPO", **pages),
                scans_of(Image.new("L", (16, 16)), 40, 40, 3),
            ),
            make_jpeg,
        ),
        "PNG": Format(
            (
                *(encoded(image, "PNG") for image in (color, gray, alpha, palette, gray.convert("1"), levels)),
                png(19, 13, 8, 6, interlaced=True),
                encoded(color, "PNG", exif=exif, **pages),
                apng(19, 13, 3),
            ),
            make_png,
            with_checksums,
        ),
        "WEBP": Format(
            (
                encoded(color, "WEBP"),
                encoded(alpha, "WEBP"),
                encoded(alpha, "WEBP", lossless=True),
                encoded(color, "WEBP", **pages),
                webp_canvas(40, 30),
            ),
            lambda chance: webp_canvas(size(chance, 24), size(chance, 24), chance.choice((1, 50))),
        ),
        "GIF": Format(
            (encoded(palette, "GIF"), encoded(gray, "GIF", interlace=0), encoded(palette, "GIF", **pages)), make_gif
        ),
        "TIFF": Format(tuple(tiffs), make_tiff),
        "BMP": Format(
            (
                *(encoded(image, "BMP") for image in (color, gray, palette, gray.convert("1"), alpha)),
                bmp(12, 5, 8, 1, runs),
                bmp(12, 5, 4, 2, runs),
                bmp(9, 9, 32, 3, bytes(324), struct.pack("<III", 0xFF0000, 0xFF00, 0xFF)),
            ),
            make_bmp,
        ),
        "AVIF": Format(
            (
                encoded(color, "AVIF", speed=10),
                encoded(alpha, "AVIF", speed=10, subsampling="4:4:4"),
                encoded(color, "AVIF", speed=10, **pages),
            ),
            make_avif,
        ),
        "JPEG2000": Format(
            (
                *(encoded(image, "JPEG2000") for image in (color, gray, alpha)),
                encoded(color, "JPEG2000", no_jp2=True, tile_size=(8, 8), num_resolutions=3),
                j2k(40, 40),
            ),
            make_jpeg2000,
        ),
        "PPM": Format(
            (
                *(encoded(image, "PPM") for image in (color, gray, gray.convert("1"), levels)),
                b"P3\n# note\n3 2\n255\n" + b"1 2 3 4 5 6 7 8 9 " * 2,
                b"P2 3 2 65535\n1 2 3 400 5 60000\n",
                b"P1\n5 2\n10101\n01010\n",
                b"P5 3 2 1023\n" + bytes(12),
                b"Pf 2 2 -1.0\n" + bytes(16),
            ),
            make_ppm,
        ),
    }
    if find_heif():
        heif = (encoded(noise(64, 64), "HEIF"), encoded(noise(64, 64, "RGBA"), "HEIF"))
        found["HEIF"] = Format(heif, lambda chance: with_claimed_size(heif[0], size(chance, 32), size(chance, 32)))
    return found


def size(chance: random.Random, bits: int = 32) -> int:
    """A width or a height: small, any, or one that numbers of so many bits end at."""
    most = (1 << bits) - 1
    return min(
        most,
        max(
            1, chance.choice((chance.randrange(1, 100), int(2 ** chance.uniform(0, bits)), 1 << chance.randrange(bits)))
        ),
    )


def sides(chance: random.Random, bits: int = 32) -> tuple[int, int]:
    """A width and a height whose product is often near what is let in."""
    width = size(chance, bits)
    return width, chance.choice(
        (size(chance, bits), max(1, min((1 << bits) - 1, int(2 ** chance.uniform(20, 28)) // width)))
    )


def make_jpeg(chance: random.Random) -> bytes:
    width, height = sides(chance, 16)
    match chance.randrange(4):
        case 0:
            return scans_of(Image.new("L", (16, 16)), width, height, int(2 ** chance.uniform(0, 12)))
        case 1:
            return flat_jpeg(width, height, chance.random() < 0.5, chance.random() < 0.5)
        case 2:
            return flat_jpeg(width, height, components=4)[: -2 if chance.random() < 0.5 else None]
        case _:
            kind, body = chance.choice(
                ((0xE1, b"Exif\0\0"), (0xE2, b"ICC_PROFILE\0\1\2"), (0xE2, b"MPF\0"), (0xFE, b""))
            )
            return jpeg_with(
                segment(kind, body + chance.randbytes(chance.choice((0, 9, 60_000)))) * chance.choice((1, 20))
            )


def make_png(chance: random.Random) -> bytes:
    width, height = sides(chance)
    depth, color = chance.choice(((1, 0), (8, 0), (16, 0), (8, 2), (16, 2), (8, 3), (8, 4), (16, 4), (8, 6), (16, 6)))
    whole = width * height < 1 << 22
    data = None if whole else zeros(min(width * height, 1 << chance.randrange(28)))
    before = chance.choice((b"", chunk(b"tRNS", bytes(6)), chunk(b"acTL", bytes(8)), chunk(b"gAMA", b"\0")))
    return png(width, height, depth, color, chance.random() < 0.5, before, data, chance.choice((1 << 30, 40)))


def make_gif(chance: random.Random) -> bytes:
    return gif(
        sides(chance, 16),
        sides(chance, 16),
        chance.randbytes(chance.choice((2, 200))),
        chance.random() < 0.5,
        chance.randrange(4),
        interlaced=chance.random() < 0.5,
        frames=chance.choice((1, 30)),
    )


def make_tiff(chance: random.Random) -> bytes:
    width, height = sides(chance)
    samples, bits = chance.choice((1, 3, 4)), chance.choice((1, 8, 16))
    compression = chance.choice((1, 2, 3, 4, 5, 6, 7, 8, 32773, 34925, 50000, 50001, 34712, 34887))
    small = width * height < 1 << 26
    data = zeros(width * height * samples) if compression == 8 and small else chance.randbytes(300)
    extra: dict[int, tuple[int, int | list[int]]] = {
        274: (3, chance.randrange(1, 9)),
        284: (3, chance.choice((1, 1, 2))),
        278: (4, chance.choice((1, height))),
        317: (3, chance.choice((1, 2, 3))),
    }
    if chance.random() < 0.2:
        extra |= {322: (4, size(chance)), 323: (4, size(chance)), 324: (4, 0), 325: (4, len(data))}
    photometric = chance.choice((0, 1, 2, 3, 5, 6, 8))
    return tiff_picture(width, height, compression, data, samples, bits=bits, photometric=photometric, tags=extra)


def make_bmp(chance: random.Random) -> bytes:
    width, height = sides(chance, 31)
    bits, compression = chance.choice(((1, 0), (4, 2), (8, 1), (24, 0), (8, 1), (4, 2)))
    return bmp(width, height, bits, compression, chance.randbytes(2) * chance.choice((1, 300)) + chance.randbytes(60))


def make_avif(chance: random.Random) -> bytes:
    data = encoded(noise(64, 64), "AVIF", speed=10)
    at = data.index(b"\x0a", data.index(b"mdat"))  # the sequence header
    changed = bytearray(with_claimed_size(data, *sides(chance)))
    for _ in range(chance.choice((0, 1, 3))):
        changed[at + 2 + chance.randrange(9)] = chance.randrange(256)
    return bytes(changed)


def make_jpeg2000(chance: random.Random) -> bytes:
    width, height = sides(chance)
    tile = chance.choice((None, sides(chance)))
    if tile is not None and (-(-width // tile[0])) * (-(-height // tile[1])) > 65_535:
        tile = None
    data = j2k(
        width,
        height,
        tile,
        chance.choice((1, 3, 3, 4, 5)),
        chance.choice((0, 1, 5, 32)),
        chance.choice((0, 1, 20, 65_535)),
        (chance.randrange(7), chance.randrange(7)),
        chance.choice((None, None, chance.randrange(256))),
        bytes(chance.choice((6, 1000))),
        chance.choice((1, 8, 16, 38)),
    )
    return jp2(*sides(chance), data) if chance.random() < 0.3 else data


def make_ppm(chance: random.Random) -> bytes:
    width, height = sides(chance)
    kind = chance.choice((b"P1", b"P2", b"P3", b"P4", b"P5", b"P6", b"Pf", b"PyP", b"PyRGBA", b"P0CMYK"))
    comments = b"#" + b"x" * chance.choice((0, 3000)) + b"\n"
    most = b"%d " % chance.choice((1, 255, 1023, 65_535, 99_999))
    head = kind + b"\n" + comments * chance.choice((0, 1, 900)) + b"%d %d " % (width, height) + most
    return head + chance.choice((chance.randbytes(300), b"1 " * 300, comments * 300))


def with_checksums(data: bytes) -> bytes:
    """A PNG whose chunks have the right checksums, as far as they can be told."""
    out, at = bytearray(data), 8
    while at + 12 <= len(out):
        end = at + 8 + int.from_bytes(out[at : at + 4], "big")
        if end + 4 > len(out):
            break
        out[end : end + 4] = struct.pack(">I", zlib.crc32(out[at + 4 : end]))
        at = end + 4
    return bytes(out)


def picture(form: Format, seed: int) -> bytes:
    """The picture that a seed makes: from numbers, or a good one damaged, in its header rather than anywhere."""
    chance = random.Random(seed)
    if form.make is not None and chance.random() < 0.3:
        return form.make(chance)
    data = chance.choice(form.seeds)
    match chance.randrange(3):
        case 0:
            data = damaged((data,), chance)
        case 1:
            cut = chance.choice((32, 64, 200))
            data = damaged((data[:cut],), chance) + data[cut:]
        case _:  # numbers into the header
            changed = bytearray(data)
            for _ in range(chance.choice((1, 1, 2))):
                packing = chance.choice(("<B", "<H", ">H", "<I", ">I"))
                length = struct.calcsize(packing)
                at = chance.randrange(min(len(data), 300))
                changed[at : at + length] = struct.pack(packing, chance.choice(NUMBERS) & (1 << 8 * length) - 1)
            data = bytes(changed)
    return form.mend(data) if chance.random() < 0.9 else data


def attempt(data: bytes, exact: bool) -> tuple[str, float, int]:
    """ "read", "refused", or what went wrong; the seconds of the processor, and the growth in MiB."""
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before, start = peak_kib(), time.process_time()
    try:
        as_tower(data, exact)
        outcome = "read"
    except ImageError:
        outcome = "refused"
    except BaseException as error:
        outcome = f"{type(error).__name__}: {error}"
    seconds, mib = time.process_time() - start, (peak_kib() - before) >> 10
    if outcome in ("read", "refused") and (seconds > MAX_SECONDS or mib > MAX_MIB):
        outcome = f"{outcome}, took {seconds:.1f} s and {mib} MiB"
    return outcome, seconds, mib


def peak_kib() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status[status.index("VmHWM:") + 6 :].split(None, 1)[0])


def fuzz(form: Format, seeds: Iterable[int]) -> tuple[dict[str, float], dict[int, str]]:
    """Try seeds in forks of this process: how many were read and refused, what they took at most, what went wrong."""
    totals: dict[str, float] = {"read": 0, "refused": 0, "seconds": 0.0, "mib": 0}
    findings = dict[int, str]()
    left = list(seeds)
    shared = mmap.mmap(-1, 8)  # the seed at work: what is left of a process that died
    while left:
        receiving, sending = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(receiving)
            resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            for seed in left[:500]:
                shared[:] = struct.pack("<Q", seed)
                answer = seed, *attempt(picture(form, seed), exact=seed % 2 == 0)
                os.write(sending, json.dumps(answer).encode() + b"\n")
            os._exit(0)
        os.close(sending)
        done = 0
        with os.fdopen(receiving) as pipe:
            for line in pipe:
                seed, outcome, seconds, mib = json.loads(line)
                done += 1
                totals["seconds"], totals["mib"] = max(totals["seconds"], seconds), max(totals["mib"], mib)
                if outcome in totals:
                    totals[outcome] += 1
                else:
                    findings[seed] = outcome
        _, status = os.waitpid(child, 0)
        if status:
            (seed,) = struct.unpack("<Q", shared[:])
            findings[seed] = f"the process ended with status {status}"
            done += 1
        left = left[done:]
    return totals, findings


def main() -> None:
    count, first = int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else time.time_ns() % 10**12
    every = formats()
    Image.init()
    print(
        f"seeds from {first}\n\n| format | read | refused | most s | most MiB | findings |\n|---|---|---|---|---|---|"
    )
    for name, form in every.items():
        totals, findings = fuzz(form, range(first, first + count // len(every) + 1))
        figures = f"{totals['read']:.0f} | {totals['refused']:.0f} | {totals['seconds']:.2f} | {totals['mib']:.0f}"
        print(f"| {name} | {figures} | {len(findings)} |", flush=True)
        for seed, what in findings.items():
            print(f"  seed {seed}: {what[:200]}", flush=True)
            Path(f"fuzz-{name}-{seed}").write_bytes(picture(form, seed))


if __name__ == "__main__":
    main()
