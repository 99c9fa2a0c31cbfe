"""Files that are there whole or not at all, whatever is killed when."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PARTIAL = ".partial"


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """A path to write to; at the end of the block, without an error, its file becomes `path`.

    Each block has a path of its own, so that two processes that write the same file do not meet; the later one stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{uuid.uuid4().hex}{PARTIAL}")
    try:
        yield partial
        with partial.open("rb") as file:
            os.fsync(file.fileno())
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)


def remove_partial(folder: Path) -> None:
    """Removes what killed processes have left half written in `folder`. None may be writing there."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
