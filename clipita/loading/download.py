"""One file of the hub into its cache: what a server may make this machine do is bounded in bytes, time and place.

The connection, its tokens and its proxies are those of huggingface_hub, and so is the layout of the cache. Its own
download is not used: it waits for half a minute before it says that there is no network, goes on for ever with a server
that always cuts, writes as much as it is sent, and takes whatever the server calls an ETag for the name of a file.
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

T = TypeVar("T")

_FIRST_WORD = 5.0  # seconds until a server that was never heard of must have answered
_LATER_WORD = 20.0  # and one that has answered before
# On average of so many seconds. A telephone line had 6,000 bytes a second.
_WINDOW, _SLOWEST = 60.0, 4000
_RETRIES = 5  # without progress
_PROGRESS = 1 << 20  # bytes, or 1 % of a file of more
_PAUSE = 1.0
_CHUNK = 1 << 16

# Of a file by its ending; the largest in use are lists of pieces of 35 MB.
_SMALL = (".json", ".md", ".model", ".txt")
_MAX_SMALL = 64 << 20
_MAX_LARGE = 128 << 30
_MAX_UNSTATED = 1 << 30  # where the server does not say how large
_SPARE = 64 << 20  # of the disk, left to others

_COMMIT_HEADER = "X-Repo-Commit"
_MAX_REDIRECTS = 5

# What the server chooses and what becomes a part of a path. Git has 40 digits, and the hub for large files 64.
_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_ETAG = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,199}")


class HubSilentError(Exception):
    """The hub does not answer, or too slowly."""


class Progress:
    """How the download of one file goes, as it is seen from outside."""

    def __init__(self) -> None:
        self.received = 0
        self.stopped = False


def download(name: str, file: str, revision: str | None, cache: Path, *, heard: bool) -> Path | None:
    """Fetch one file of a model into the hub's cache.

    Args:
        name: "owner/name".
        file: Its path in the repository, which must lead nowhere but down.
        revision: Branch, tag or commit; None means the main branch.
        cache: The hub's cache.
        heard: Whether the hub has answered before: it is then waited for longer.

    Returns:
        The file in the snapshot of its commit; None if the repository has none of this name.

    Raises:
        CheckpointError: what the server says or sends cannot be meant well, or the disk is too small.
        HubSilentError: it does not answer.
        Whatever huggingface_hub and its HTTP library raise.
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
        if _COMMIT.fullmatch(commit):  # so that nobody has to ask again
            absent = store / ".no_exist" / commit / file
            absent.parent.mkdir(parents=True, exist_ok=True)
            absent.touch()
            _refer(store, revision, commit)
        return None
    # Of large files the hub names and measures what it sends somebody else for.
    commit = str(said.get(_COMMIT_HEADER) or "")
    etag = str(said.get("X-Linked-ETag") or said.get("ETag") or "").removeprefix("W/").strip('"')
    is_elsewhere = said.get("Location") is not None
    size = _whole(said.get("X-Linked-Size") or (None if is_elsewhere else said.get("Content-Length")))
    if not commit or not etag:  # the page of a hotel's network, for one
        raise HubSilentError(
            f"what answers at {url[:200]} is no hub: it does not say of which commit the file is, or its ETag"
        )
    if not _COMMIT.fullmatch(commit) or not _ETAG.fullmatch(etag):
        raise CheckpointError(
            f"the server says that {file!r} of {name!r} is of the commit {commit[:80]!r} and has the ETag "
            f"{etag[:80]!r}, which no hub says. Nothing of it was written. Look at HF_ENDPOINT, and at the proxy in "
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
    """Whether it may work in a second: silence, a broken connection, or a server that is too busy."""
    response: Any = getattr(error, "response", None)
    return response is None or response.status_code in (408, 429, 500, 502, 503, 504)


def _patience(heard: bool) -> float:
    """Seconds; what the user asks of huggingface_hub counts more."""
    from huggingface_hub import constants

    default: float = getattr(constants, "DEFAULT_ETAG_TIMEOUT", 10)
    asked: float = constants.HF_HUB_ETAG_TIMEOUT
    if asked != default:
        return asked
    return _LATER_WORD if heard else _FIRST_WORD


def _headers() -> dict[str, str]:
    """Who asks, and with which token.

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
    """The headers of the answer that says of which commit a file is; it may send on to where its bytes are."""
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
        following = urljoin(url, location)  # a repository that was renamed, or a mirror
        if urlsplit(following).netloc != urlsplit(url).netloc:
            headers = {key: value for key, value in headers.items() if key != "authorization"}
        url, redirects = following, redirects + 1


def _is_httpx(session: Any) -> bool:
    """Whether it is a client of httpx, since huggingface_hub 1.0, and no session of requests."""
    return callable(getattr(session, "stream", None))


def _whole(value: str | None) -> int | None:
    """A number of a header; None if it is none."""
    try:
        return None if value is None else int(value)
    except ValueError:
        return None


def _most(size: int | None, file: str, folder: Path, called: str) -> int:
    """The most bytes that a file may have."""
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
    url: str, headers: dict[str, str], file: BinaryIO, size: int | None, most: int, called: str, progress: Progress
) -> None:
    """Ask until all of it is here; a server that cuts goes on where it was, if it can."""
    furthest = failures = 0
    with _bar(called, size) as advance:
        while True:
            trouble: BaseException | None = None
            try:
                _append(url, headers, file, most, called, progress, advance)
            except (CheckpointError, HubSilentError):
                raise
            except Exception as error:  # of its HTTP library: a connection that broke, or was silent
                is_answer = getattr(error, "response", None) is not None  # and no file
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
                    f"{called} cannot be fetched: the server ended {failures} times before it was here, last after "
                    f"{place:,} of {most:,} bytes. Try again later, and look at the proxy in between, if there is one."
                ) from trouble
            time.sleep(_PAUSE)


def _append(
    url: str,
    headers: dict[str, str],
    file: BinaryIO,
    most: int,
    called: str,
    progress: Progress,
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
                    "later, and look at the proxy in between, if there is one."
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
    """Whether the answer goes on from where it was asked to, and its bytes as they come."""
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


def _within(seconds: float | None, work: Callable[[Progress], T], what: str) -> T:
    """Do `work` in a thread, and leave it there when it takes too long: looking up a name cannot be interrupted, and a
    server that sends a byte now and then is never late.

    Args:
        seconds: How long it may take; None for as long as something comes, at 4 kB a second.
        work: What to do; it is told of when it need not go on.
        what: Ends the error: "... to hear of the file".
    """
    progress, done = Progress(), threading.Event()
    result: list[T] = []
    raised: list[BaseException] = []

    def run() -> None:
        try:
            result.append(work(progress))
        except BaseException as error:
            raised.append(error)
        finally:
            done.set()

    # A daemon, or a server could keep the process from ending.
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
    """A line that says how far a large file is, unless huggingface_hub is told to show none."""
    from huggingface_hub.utils import are_progress_bars_disabled

    if size is None or size < _PROGRESS or are_progress_bars_disabled():
        yield lambda count: None
        return
    from tqdm import tqdm

    with tqdm(desc=called[:60], total=size, unit="B", unit_scale=True, disable=None, leave=False) as bar:
        yield bar.update


@contextlib.contextmanager
def _alone(cache: Path, repository: str, etag: str) -> Generator[None]:
    """Hold the lock of one file, which huggingface_hub holds as well."""
    import filelock

    lock = cache / ".locks" / repository / f"{etag}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(lock):
        yield


def _refer(store: Path, revision: str, commit: str) -> None:
    """Note the commit that a branch or tag is at."""
    reference = store / "refs" / revision
    if revision == commit or not reference.resolve().is_relative_to((store / "refs").resolve()):
        return
    reference.parent.mkdir(parents=True, exist_ok=True)
    part = reference.with_name(f"{reference.name}.{secrets.token_hex(4)}.tmp")
    part.write_text(commit)
    os.replace(part, reference)


def _point(pointer: Path, blob: Path) -> None:
    """Link a file of a snapshot to its contents, or where the system has no links, put them there."""
    if pointer.exists():
        return
    pointer.unlink(missing_ok=True)  # a link to what is gone
    try:
        pointer.symlink_to(os.path.relpath(blob, pointer.parent))
    except OSError:
        shutil.move(blob, pointer)
