"""Read lines of a text file, plain or gzip; broken lines do not stop it, and it reports where the file is cut off."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from clipita_train.data.pairs.rows import Bad

CHUNK = 1 << 20
# Limit of a line in bytes, which bounds memory. The longest lines of WIT hold whole sections of Wikipedia.
LONGEST = 1 << 24

Line = tuple[str, str]  # FILE:NUMBER, and the line without its line end


def read_lines(path: Path) -> Iterator[Line | Bad]:
    """Yield the lines of a file in bounded memory; CR LF ends a line too, U+2028 does not.

    Yields a `Bad` for an empty file, for a line that is not UTF-8 or is longer than `LONGEST`, and for gzip that is
    damaged or ends early. Of a file that is cut off, the whole lines are read.

    Raises:
        OSError: The file cannot be opened or read.
    """
    number, rest, reason = 0, b"", None
    if not path.stat().st_size:
        yield Bad(path.name, "the file is empty")
        return
    chunks = _gunzip(path) if path.suffix == ".gz" else _plain(path)
    skipping = False  # inside a line that is too long, up to its end
    for chunk in chunks:
        if isinstance(chunk, str):
            reason = chunk
            break
        *whole, rest = (rest + chunk).split(b"\n")
        for raw in whole:
            number += 1
            yield _line(path, number, raw, skipping)
            skipping = False
        if len(rest) > LONGEST:
            rest, skipping = b"", True
    if reason is not None:
        yield Bad(f"{path.name}:{number + 1}", reason)
    elif rest or skipping:
        yield _line(path, number + 1, rest, skipping)


def _line(path: Path, number: int, raw: bytes, too_long: bool) -> Line | Bad:
    place = f"{path.name}:{number}"
    if too_long or len(raw) > LONGEST:
        return Bad(place, f"a line of more than {LONGEST} bytes")
    try:
        return place, raw.removesuffix(b"\r").decode("utf-8-sig" if number == 1 else "utf-8")
    except UnicodeDecodeError:
        return Bad(place, "not UTF-8")


def _plain(path: Path) -> Iterator[bytes | str]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            yield chunk


def _gunzip(path: Path) -> Iterator[bytes | str]:
    """Yield chunks of unpacked bytes; a str, at the end, says why the gzip ends.

    gzip.open would raise where the file is cut off, and lose the bytes that it had already unpacked.
    """
    gunzip = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while packed := file.read(CHUNK):
            while packed:
                if gunzip.eof:  # another member of the gzip file follows
                    gunzip = zlib.decompressobj(wbits=31)
                try:
                    chunk = gunzip.decompress(packed, CHUNK)
                except zlib.error:
                    yield "the gzip is damaged from here on"
                    return
                yield chunk
                packed = gunzip.unused_data if gunzip.eof else gunzip.unconsumed_tail
    while not gunzip.eof and (chunk := gunzip.decompress(gunzip.unconsumed_tail, CHUNK)):
        yield chunk
    if not gunzip.eof:
        yield "the gzip ends early"
