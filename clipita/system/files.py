"""Write files so that others see them whole or not at all, whenever a process is killed."""

import contextlib
import os
import secrets
from collections.abc import Generator
from pathlib import Path

PARTIAL = ".part"


@contextlib.contextmanager
def replacing(path: Path, *, lasting: bool = False) -> Generator[Path]:
    """Give a path beside `path` to write to, and move it there if the block ends without an error.

    Each block has a path of its own: of two writers of the same file, the one that ends later wins.

    Args:
        path: The file to write or replace.
        lasting: Wait until the disk has it, so that it outlasts a power cut.

    Raises:
        OSError: It cannot be written; what was there stays.
    """
    part = path.with_name(f".{path.name[:100]}.{os.getpid()}.{secrets.token_hex(4)}{PARTIAL}")
    try:
        yield part
        if lasting:
            with part.open("rb") as file:
                os.fsync(file.fileno())
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
