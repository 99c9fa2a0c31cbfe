"""Download images to files in a folder, and note a status for each address; finished addresses are not asked again.

| status | meaning | tried again in the next run |
|---|---|---|
| ok | the file is there | |
| http_404, http_500, ... | what the host answered | 408, 425, 429, 500, 502, 503, 504 |
| dns, timeout, connection, cut | the name is unknown (now), too slow, no connection, the answer ends early | yes |
| rate_limited | not asked: the host wants a longer pause than a run waits | yes |
| redirects | too many redirects | |
| too_large, not_image | more bytes or pixels than the limits; not an image, or a damaged one | |
| blocked, bad_address | leads to a machine that is not public; not an address of HTTP or HTTPS | |
| opted_out | a header keeps it out of training data | |
"""

import asyncio
import hashlib
import io
import json
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from filelock import FileLock, Timeout

from clipita.errors import ImageError, ImageTooLargeError
from clipita.images.pixels import load_picture
from clipita_train.data.pairs.fetch import PASSING, Fetcher, Outcome, Settings

STATUSES = "statuses.jsonl"
WINDOW = 4096  # addresses in progress at a time; most of them wait for the turn of their host
_CHECKED_SIDE = 64  # pixels; an image that is kept as it came is decoded this small, to check that it can be


def download(
    rows: Iterable[tuple[str, str]], folder: Path, settings: Settings, *, again: Iterable[str] = PASSING
) -> list[tuple[str, Outcome]]:
    """Download the images of some rows to `image_path(folder, address)`.

    Whatever happens to an address becomes its status. Statuses are appended to `statuses.jsonl` in the folder as they
    come, each after its file, so a run that was killed goes on when this is called again. An address that occurs twice
    is asked for once.

    Args:
        rows: (id, address) of each row.
        folder: Where files and statuses go.
        settings: How to download.
        again: Statuses with which an address of an earlier run is tried again.

    Returns:
        (id, outcome) of each row, in their order.

    Raises:
        RuntimeError: Another process downloads into the folder; two would ask hosts at twice the rate.
        OSError: The folder cannot be written.
    """
    rows = list(rows)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            known = _read_statuses(folder / STATUSES)
            wanted = _wanted(dict.fromkeys(address for _, address in rows), known, set(again), folder)
            if wanted:
                with _open_for_lines(folder / STATUSES) as log:
                    known |= asyncio.run(_download(wanted, folder, settings, log))
    except Timeout:
        raise RuntimeError(f"another process downloads into {folder}: wait for it, or use another folder") from None
    return [(key, known[address]) for key, address in rows]


def image_path(folder: Path, address: str) -> Path:
    """Return the path of the image of an address; it exists if the status is "ok", and is a JPEG or as sent."""
    name = hashlib.sha256(address.encode("utf-8", "surrogatepass")).hexdigest()
    return folder / name[:2] / name


def _wanted(addresses: Iterable[str], known: dict[str, Outcome], again: set[str], folder: Path) -> list[str]:
    def is_done(address: str) -> bool:
        if address not in known or (before := known[address]).status in again:
            return False
        path = image_path(folder, address)
        return before.status != "ok" or (path.is_file() and path.stat().st_size == before.bytes)

    return [address for address in addresses if not is_done(address)]


async def _download(addresses: list[str], folder: Path, settings: Settings, log: BinaryIO) -> dict[str, Outcome]:
    # Names are looked up in threads, for seconds each if a name server is dead, so more threads than usual are needed.
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(settings.connections))
    fetcher = Fetcher(settings, partial(_keep, folder, settings))
    window = asyncio.Semaphore(WINDOW)
    done: dict[str, Outcome] = {}

    async def one(address: str) -> None:
        try:
            done[address] = outcome = await fetcher.fetch(address)
            log.write(json.dumps({"address": address} | asdict(outcome)).encode() + b"\n")
            log.flush()
        finally:
            window.release()

    try:
        async with asyncio.TaskGroup() as group:
            for address in addresses:
                await window.acquire()
                group.create_task(one(address))
    except ExceptionGroup as group:  # the disk is full, or the folder may not be written
        raise group.exceptions[0] from None
    finally:
        await fetcher.close()
    return done


def _keep(folder: Path, settings: Settings, address: str, body: bytes) -> Outcome:
    """Write the file if the bytes are those of an image that can be decoded."""
    try:
        picture, (width, height) = load_picture(
            body, max_side=settings.max_side or _CHECKED_SIDE, name="the answer", max_pixels=settings.max_pixels
        )
    except ImageTooLargeError as error:
        return Outcome("too_large", str(error)[:200])
    except ImageError as error:
        return Outcome("not_image", str(error)[:200])
    if settings.max_side is not None:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=settings.quality)
        body = buffer.getvalue()
    path = image_path(folder, address)
    path.parent.mkdir(exist_ok=True)
    part = path.with_name(f"{path.name}.part")
    part.write_bytes(body)
    part.replace(path)
    return Outcome("ok", "", len(body), width, height)


def _read_statuses(path: Path) -> dict[str, Outcome]:
    """Return the last status of each address. A line that was cut off by a kill is passed over."""
    known: dict[str, Outcome] = {}
    if path.is_file():
        with path.open("rb") as file:
            for line in file:
                try:
                    fields: Any = json.loads(line)
                    address = fields.pop("address")
                    known[address] = Outcome(**fields)
                except (ValueError, TypeError, AttributeError, KeyError):
                    continue
    return known


def _open_for_lines(path: Path) -> BinaryIO:
    """Open a file for appending, at the beginning of a line."""
    file = path.open("ab+")
    if file.tell():
        file.seek(-1, 2)
        if file.read(1) != b"\n":
            file.write(b"\n")
    return file
