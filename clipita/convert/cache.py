"""Keep the bundles that were made on this machine, so that each is made once.

They are at $HF_HOME/clipita/<model>/<key>, or below the `cache_dir` of `load`. Each is a whole bundle, which may be
copied elsewhere and loaded as a folder. A new version of the conversion has new keys. Any of these folders may be
deleted: a bundle that is needed is made again.
"""

import json
import logging
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from clipita.bundles.bundle import Bundle, read_bundle
from clipita.errors import CheckpointError

# This file beside a bundle holds the sizes and times of its files when it was made. While they are the same, nobody has
# touched the files, and 0.7 GB need not be hashed at every start (which takes 0.4 s, more than all the rest).
_STAMP = "unchanged.json"

_log = logging.getLogger("clipita")


def cache_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the bundles that were made on this machine."""
    if cache_dir is not None:
        return Path(cache_dir).expanduser() / "clipita"
    from huggingface_hub import constants

    # An empty HF_HOME counts as not set; huggingface_hub would take the empty path for the working directory.
    home = constants.HF_HOME or os.path.join(constants.default_home, "huggingface")
    return Path(home) / "clipita"


def label_folder(cache_dir: str | os.PathLike[str] | None) -> Path:
    """Return the folder of the vectors of labels, beside the bundles; no model has a name that begins with a point."""
    return cache_folder(cache_dir) / ".labels"


def cached_bundle(place: Path, make: Callable[[Path], object], *, called: str, needed_bytes: int) -> Bundle:
    """Return the bundle at `place`; make it first if it is missing or damaged.

    A new bundle appears whole or not at all, even if the process is killed. If two processes want it at once, one makes
    it and the other waits; the lock is the system's, and ends with the process that holds it.

    Args:
        place: A folder of `cache_folder` that belongs to this bundle alone.
        make: Called with a folder, writes the bundle into it.
        called: The model's name in error messages.
        needed_bytes: The least that the bundle will take on the disk, as far as is known before anything is read;
            `write_weights` checks again when it knows more.

    Raises:
        CheckpointError: The bundle cannot be written (the disk is full, the folder may not be written to), or `make`
            raised an error.
    """
    bundle = _read(place)
    if bundle is not None:
        return bundle
    import filelock

    part = place.with_name(f".{place.name}.part")
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(place.with_name(f".{place.name}.lock"))
        try:
            lock.acquire(timeout=1)
        except filelock.Timeout:
            _log.info("Another process is converting %s; waiting for it.", called)
            lock.acquire()
        try:
            bundle = _read(place)
            if bundle is None:
                _clear(place)
                _clear(part)  # left by a process that was killed
                free = shutil.disk_usage(place.parent).free
                if free < needed_bytes:
                    raise CheckpointError(
                        f"{called} takes {needed_bytes / 1e9:.1f} GB once it is converted, and the disk of "
                        f"{str(place.parent)!r} has {free / 1e9:.1f} GB left. {_ELSEWHERE}"
                    )
                make(part)
                (part / _STAMP).write_text(json.dumps(_stamp(part)))
                os.rename(part, place)
                bundle = _read(place)
        finally:
            shutil.rmtree(part, ignore_errors=True)
            lock.release()
    except OSError as error:
        if isinstance(error, FileNotFoundError) and place.parent.is_dir():
            raise CheckpointError(
                f"{called} was changed by another program while it was converted: {str(error.filename)!r} is gone. "
                "Load it again when its folder is complete."
            ) from error
        raise CheckpointError(
            f"{called} has to be converted once, and {str(place.parent)!r} cannot be written to: "
            f"{error.strerror or error}. {_ELSEWHERE}"
        ) from error
    if bundle is None:
        raise CheckpointError(f"{str(place)!r} was made and then changed by another program. Load it again.")
    return bundle


_ELSEWHERE = "Make room, or name another place: cache_dir=..., or HF_HOME."


def _read(place: Path) -> Bundle | None:
    try:
        stamp: object = json.loads((place / _STAMP).read_bytes())
        return read_bundle(place, verify=stamp != _stamp(place))
    except (OSError, ValueError, CheckpointError):
        return None


def _stamp(folder: Path) -> dict[str, list[int]]:
    """Return the size and the time of every file of a bundle."""
    found = ((path.name, path.stat()) for path in sorted(folder.iterdir()) if path.name != _STAMP)
    return {name: [status.st_size, status.st_mtime_ns] for name, status in found}


def _clear(place: Path) -> None:
    if place.exists():
        shutil.rmtree(place)
