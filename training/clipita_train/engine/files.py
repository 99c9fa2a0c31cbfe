"""Write files so that they are complete or absent, whenever a process is killed."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from clipita.system.files import PARTIAL, replacing


@contextmanager
def written_whole(path: Path) -> Iterator[Path]:
    """Give a temporary path to write to; when the block ends without an error, it is renamed to `path`.

    Each block has a temporary path of its own, so two processes that write the same file do not disturb each other; the
    file that is finished later stays.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path, lasting=True) as partial:
        yield partial


def remove_partial(folder: Path) -> None:
    """Remove files that killed processes have left half written. No process may be writing in the folder."""
    for path in folder.glob(f".*{PARTIAL}"):
        path.unlink(missing_ok=True)
