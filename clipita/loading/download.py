"""Download one file of the hub into its cache, and bound what the server can cause in bytes, time and place.

The connection, its tokens and its proxies are those of huggingface_hub, and so is the layout of the cache. Its own
download is not used: it waits for half a minute before it reports that there is no network, goes on for ever with a
server that always breaks off, writes as much as it is sent, and takes any ETag of the server as the name of a file.
"""

import contextlib
import os
import re
import secrets
import shutil
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any, BinaryIO, TypeVar, cast
from urllib.parse import urljoin, urlsplit

from clipita.errors import CheckpointError
from clipita.system.files import replacing

T = TypeVar("T")

_FIRST_WORD = 5.0  # seconds in which a server must answer that has not answered before
_LATER_WORD = 20.0  # seconds for one that has
# The least bytes a second, on average over this many seconds. A telephone line had 6,000.
_WINDOW, _SLOWEST = 60.0, 4000
_RETRIES = 5  # without progress
_PROGRESS = 1 << 20  # bytes that count as progress, or 1 % of a larger file
_PAUSE = 1.0
_CHUNK = 1 << 16

# The endings of files that are small; the largest in use are lists of pieces of 35 MB.
_SMALL = (".json", ".md", ".model", ".txt")
_MAX_SMALL = 64 << 20
_MAX_LARGE = 128 << 30
_MAX_UNSTATED = 1 << 30  # bytes of a file whose size the server does not state
_SPARE = 64 << 20  # bytes of the disk left for other programs

_COMMIT_HEADER = "X-Repo-Commit"
_MAX_REDIRECTS = 5

# The server chooses these two, and they become parts of a path. Git uses 40 digits, and the hub 64 for large files.
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_ETAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class HubSilentError(Exception):
    """The hub does not answer, or too slowly."""


class Transfer:
    """The progress of one download, for the thread that watches it."""

    def __init__(self) -> None:
        self.received = 0
        self.stopped = False


def download(name: str, file: str, revision: str | None, cache: Path, *, heard: bool) -> Path | None:
    """Fetch one file of a model into the hub's cache.

    Args:
        name: "owner/name".
        file: Its path in the repository, without ".." or other ways out.
        revision: Branch, tag or commit; None means the main branch.
        cache: The hub's cache.
        heard: Whether the hub has answered before, so that it gets more time.

    Returns:
        The file in the snapshot of its commit; None if the repository has none of this name.

    Raises:
        CheckpointError: The server's headers or data look hostile, or the disk is too small.
        HubSilentError: The server does not answer.
        Exception: Any error of huggingface_hub and its HTTP library.
    """
    from huggingface_hub import constants, hf_hub_url
    from huggingface_hub.errors import EntryNotFoundError

    revision = revision or constants.DEFAULT_REVISION
    headers = _headers()
    seconds = _patience(heard)
    store = cache / f"models--{name.replace('/', '--')}"
    url = hf_hub_url(name, file, revision=revision)
    what = f"hear of {file!r}"

    def ask() -> Any:
        return _within(seconds, lambda _: _head(url, headers, seconds), what)

    try:
        try:
            said = ask()
        except Exception as error:
            if not heard or not _may_pass(error):
                raise
            time.sleep(_PAUSE)
            said = ask()
    except EntryNotFoundError as error:
        commit = str(cast(Any, error).response.headers.get(_COMMIT_HEADER) or "")
        if _COMMIT.fullmatch(commit):  # remembers it, as huggingface_hub does
            absent = store / ".no_exist" / commit / file
            absent.parent.mkdir(parents=True, exist_ok=True)
            absent.touch()
            _refer(store, revision, commit)
        return None
    # A large file is sent by another server; these headers of the hub have its ETag and its size.
    commit = str(said.get(_COMMIT_HEADER) or "")
    etag = str(said.get("X-Linked-ETag") or said.get("ETag") or "").removeprefix("W/").strip('"')
    is_elsewhere = said.get("Location") is not None
    size = _whole(said.get("X-Linked-Size") or (None if is_elsewhere else said.get("Content-Length")))
    if not commit or not etag:  # for instance the page of a hotel's network
        raise HubSilentError(
            f"the server at {url[:200]} is no hub: it does not state the commit of the file, or its ETag"
        )
    if not _COMMIT.fullmatch(commit) or not _ETAG.fullmatch(etag):
        raise CheckpointError(
            f"the server says that {file!r} of {name!r} is of the commit {commit[:80]!r} and has the ETag "
            f"{etag[:80]!r}, which no hub says. Nothing of it was written. Check HF_ENDPOINT, and the proxy in "
            "between, if there is one."
        )
    called = f"{file!r} of {name!r}"
    blob, pointer = store / "blobs" / etag, store / "snapshots" / commit / file
    blob.parent.mkdir(parents=True, exist_ok=True)
    most = _most(size, file, blob.parent, called)
    pointer.parent.mkdir(parents=True, exist_ok=True)
    _refer(store, revision, commit)
    if not pointer.exists():
        with _alone(cache, store.name, etag):
            if not blob.exists():
                where = hf_hub_url(name, file, revision=commit)
                _fetch(where, headers, blob, size, most, called)
            _point(pointer, blob)
    return pointer


def _may_pass(error: Exception) -> bool:
    """Tell whether another try may succeed: after silence, a broken connection, or an answer of a busy server."""
    response: Any = getattr(error, "response", None)
    return response is None or response.status_code in (408, 429, 500, 502, 503, 504)


def _patience(heard: bool) -> float:
    """Return how many seconds to wait for an answer; the user's setting for huggingface_hub comes first."""
    from huggingface_hub import constants

    default: float = getattr(constants, "DEFAULT_ETAG_TIMEOUT", 10)
    asked: float = constants.HF_HUB_ETAG_TIMEOUT
    if asked != default:
        return asked
    return _LATER_WORD if heard else _FIRST_WORD


def _headers() -> dict[str, str]:
    """Return the headers of a request, with the program's name and the user's token.

    huggingface_hub would add PyTorch's version and the name of the assistant that runs it, and in version 2 asks the
    hub, once a day, which assistants there are.
    """
    import platform
    from importlib.metadata import version

    import huggingface_hub
    from huggingface_hub import constants, get_token

    agent = f"clipita/{version('clipita')}; hf_hub/{huggingface_hub.__version__}; python/{platform.python_version()}"
    token = None if constants.HF_HUB_DISABLE_IMPLICIT_TOKEN else get_token()
    return {"user-agent": agent, "Accept-Encoding": "identity"} | (
        {"authorization": f"Bearer {token}"} if token else {}
    )


def _head(url: str, headers: dict[str, str], timeout: float) -> Any:
    """Return the headers of the answer that states the commit of a file. It may redirect to the server of its bytes."""
    from huggingface_hub.utils import get_session, hf_raise_for_status

    session: Any = get_session()
    alone = {"follow_redirects" if _is_httpx(session) else "allow_redirects": False}
    redirects = 0
    while True:
        response: Any = session.request("HEAD", url, headers=headers, timeout=timeout, **alone)
        if response.status_code >= 400:
            hf_raise_for_status(response)
        location: str | None = response.headers.get("Location")
        is_redirect = 300 <= response.status_code < 400 and location is not None
        if not is_redirect or _COMMIT_HEADER in response.headers or redirects == _MAX_REDIRECTS:
            return response.headers
        following = urljoin(url, location)  # leads to a renamed repository, or to a mirror
        if urlsplit(following).netloc != urlsplit(url).netloc:
            headers = {key: value for key, value in headers.items() if key != "authorization"}
        url, redirects = following, redirects + 1


def _is_httpx(session: Any) -> bool:
    """Tell a client of httpx, which huggingface_hub uses since 1.0, from a session of requests."""
    return callable(getattr(session, "stream", None))


def _whole(value: str | None) -> int | None:
    """Return the number in a header; None if it holds none."""
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def _most(size: int | None, file: str, folder: Path, called: str) -> int:
    """Return the most bytes that may be received for a file.

    Raises:
        CheckpointError: The stated size is too large for files of its kind, or for the disk.
    """
    allowed = _MAX_SMALL if file.endswith(_SMALL) else _MAX_LARGE if size is not None else _MAX_UNSTATED
    if size is not None and not 0 <= size <= allowed:
        raise CheckpointError(
            f"the server says that {called} has {size:,} bytes, and files of its kind have at most {allowed:,}. "
            "Nothing of it was fetched; tell its author, or load another revision."
        )
    free = shutil.disk_usage(folder).free - _SPARE
    if (size or 0) > free:
        raise CheckpointError(
            f"{called} takes {(size or 0) / 1e9:.2f} GB, and the disk of {str(folder)!r} has "
            f"{max(free, 0) / 1e9:.2f} GB left. Make room, or name another place: cache_dir=..., or HF_HOME."
        )
    return size if size is not None else min(allowed, free)


def _fetch(url: str, headers: dict[str, str], blob: Path, size: int | None, most: int, called: str) -> None:
    part = blob.with_name(f"{blob.name[:100]}.{secrets.token_hex(4)}.incomplete")
    try:
        with part.open("wb") as file:
            _within(
                None, lambda progress: _complete(url, headers, file, size, most, called, progress), f"receive {called}"
            )
        os.replace(part, blob)
    finally:
        part.unlink(missing_ok=True)


def _complete(
    url: str, headers: dict[str, str], file: BinaryIO, size: int | None, most: int, called: str, progress: Transfer
) -> None:
    """Receive a whole file. After a broken connection, ask the server to go on where it was."""
    furthest = failures = 0
    with _bar(called, size) as advance:
        while True:
            trouble: BaseException | None = None
            try:
                _append(url, headers, file, most, called, progress, advance)
            except (CheckpointError, HubSilentError):
                raise
            except Exception as error:  # an error of the HTTP library: a connection that broke, or was silent
                is_answer = getattr(error, "response", None) is not None  # the server refused
                if is_answer or progress.stopped:
                    raise
                trouble = error
            place = file.tell()
            if trouble is None and (size is None or place == size):
                return
            if place < furthest + max(_PROGRESS, most // 100):
                failures += 1
            else:
                failures = 0
            furthest = max(furthest, place)
            if failures > _RETRIES:
                raise CheckpointError(
                    f"{called} cannot be fetched: the server broke off {failures} times, last after {place:,} of "
                    f"{most:,} bytes. Try again later, and check the proxy in between, if there is one."
                ) from trouble
            time.sleep(_PAUSE)


def _append(
    url: str,
    headers: dict[str, str],
    file: BinaryIO,
    most: int,
    called: str,
    progress: Transfer,
    advance: Callable[[int], object],
) -> None:
    start = file.tell()
    asked = {**headers, "Range": f"bytes={start}-"} if start else headers
    with _answer(url, asked) as (resumed, chunks):
        if start and not resumed:
            file.seek(0)
            file.truncate()
            advance(-start)
        for chunk in chunks:
            if progress.stopped:
                raise HubSilentError
            if file.tell() + len(chunk) > most:
                raise CheckpointError(
                    f"the server sends more than the {most:,} bytes that {called} has. It was not kept. Try again "
                    "later, and check the proxy in between, if there is one."
                )
            try:
                file.write(chunk)
            except OSError as error:
                raise CheckpointError(
                    f"{called} cannot be kept: {error.strerror or error}. Make room, or name another place: "
                    "cache_dir=..., or HF_HOME."
                ) from error
            progress.received += len(chunk)
            advance(len(chunk))


@contextlib.contextmanager
def _answer(url: str, headers: dict[str, str]) -> Generator[tuple[bool, Iterator[bytes]]]:
    """Request a file; give whether the answer continues from the requested byte, and its bytes as they come."""
    from huggingface_hub import constants
    from huggingface_hub.utils import get_session, hf_raise_for_status

    session: Any = get_session()
    timeout: float = constants.HF_HUB_DOWNLOAD_TIMEOUT
    if _is_httpx(session):
        with session.stream("GET", url, headers=headers, timeout=timeout, follow_redirects=True) as response:
            hf_raise_for_status(response)
            yield response.status_code == 206, response.iter_bytes()
    else:
        with session.get(url, headers=headers, timeout=timeout, stream=True) as response:
            hf_raise_for_status(response)
            yield response.status_code == 206, response.iter_content(_CHUNK)


def _within(seconds: float | None, work: Callable[[Transfer], T], what: str) -> T:
    """Do `work` in a thread, and abandon it there when it takes too long.

    A name's lookup cannot be interrupted, and a server that sends a byte now and then never runs into a time-out.

    Args:
        seconds: How long the work may take; None for as long as 4 kB come in each second.
        work: The work. It gets a `Transfer`, whose `stopped` tells it to end.
        what: The end of the error, e.g. "hear of the file".

    Raises:
        HubSilentError: The work took too long.
    """
    progress, done = Transfer(), threading.Event()
    result: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work(progress))
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    # The thread is a daemon: a slow server could otherwise keep the process from ending.
    threading.Thread(target=run, name="clipita-hub", daemon=True).start()
    start = since = time.monotonic()
    seen = 0
    try:
        while not done.wait(min(0.5, seconds or 0.5)):
            now = time.monotonic()
            if seconds is not None and now - start > seconds:
                raise HubSilentError(f"it took more than {seconds:g} s to {what}")
            if seconds is None and now - since > _WINDOW:
                if progress.received - seen < _SLOWEST * _WINDOW:
                    raise HubSilentError(f"{progress.received - seen:,} bytes came in {_WINDOW:g} s; no use to {what}")
                since, seen = now, progress.received
    finally:
        progress.stopped = True
    if raised:
        raise raised[0]
    return result[0]


@contextlib.contextmanager
def _bar(called: str, size: int | None) -> Generator[Callable[[int], object]]:
    """Show how far the download of a large file is, unless huggingface_hub is set to show no bars."""
    from huggingface_hub.utils import are_progress_bars_disabled

    if size is None or size < _PROGRESS or are_progress_bars_disabled():
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(desc=called[:60], total=size, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        yield bar.update


@contextlib.contextmanager
def _alone(cache: Path, repository: str, etag: str) -> Generator[None]:
    """Hold the lock of one file, the same that huggingface_hub uses."""
    import filelock

    lock = cache / ".locks" / repository / f"{etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):
        yield


def _refer(store: Path, revision: str, commit: str) -> None:
    """Note the commit of a branch or tag in the cache."""
    reference = store / "refs" / revision
    if revision == commit or not reference.resolve().is_relative_to((store / "refs").resolve()):
        return
    reference.parent.mkdir(parents=True, exist_ok=True)
    with replacing(reference) as part:
        part.write_text(commit)


def _point(pointer: Path, blob: Path) -> None:
    """Link a file of a snapshot to its contents; on a system without links, move the contents there."""
    if pointer.exists():
        return
    pointer.unlink(missing_ok=True)  # an old link, whose target is gone
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        shutil.move(blob, pointer)
