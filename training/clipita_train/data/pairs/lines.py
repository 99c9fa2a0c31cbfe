"""Lines of a text file, plain or gzip, that goes on after a broken line and says so where the file is cut off."""

import zlib
from collections.abc import Iterator
from pathlib import Path

from clipita_train.data.pairs.rows import Bad

CHUNK = 1 << 20
LONGEST = 1 << 24  # bytes of a line: WIT's longest carry whole sections of Wikipedia; without a limit, memory has none

Line = tuple[str, str]  # FILE:NUMBER, and the line without its end


def read_lines(path: Path) -> Iterator[Line | Bad]:
    """The file's lines one after another in bounded memory; CR LF ends a line too, U+2028 does not.

    Empty files, lines that are not UTF-8 or longer than `LONGEST`, and gzip that is damaged or ends early are `Bad`;
    of a file cut off, the lines before it are read, and the one that was being read is not.

    Raises:
        OSError: the file cannot be opened or read.
    """
    number, rest, reason = 0, b"", None
    if not path.stat().st_size:
        yield Bad(path.name, "the file is empty")
        return
    chunks = _gunzip(path) if path.suffix == ".gz" else _plain(path)
    skipping = False  # inside a line that is too long
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
    """Chunks; a str is why it ends. gzip.open raises at the cut and takes with it what it had not yet handed out."""
    gunzip = zlib.decompressobj(wbits=31)
    with path.open("rb") as file:
        while packed := file.read(CHUNK):
            while packed:
                if gunzip.eof:  # a further member
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
