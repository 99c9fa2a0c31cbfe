"""Run `clipita serve` as its users do, in a process of its own."""

import contextlib
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path


@contextlib.contextmanager
def serving(*folders: Path) -> Generator[tuple[str, int]]:
    """Serve folders, and give the server's address and the number of its process."""
    command = [sys.executable, "-c", "from clipita.cli.main import main; main()", "serve", *map(str, folders)]
    with subprocess.Popen([*command, "--port", "0"], stdout=subprocess.PIPE, text=True) as running:
        try:
            assert running.stdout is not None
            yield running.stdout.readline().strip(), running.pid
        finally:
            running.terminate()
