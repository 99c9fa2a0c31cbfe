"""Run `clipita serve` as users do, as a process of its own, and end it as systems do, by SIGTERM."""

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from pathlib import Path
from typing import NamedTuple


class Server(NamedTuple):
    """Holds where a server listens, its process, and the file of what it printed."""

    address: str
    process: subprocess.Popen[str]
    log: Path

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@contextlib.contextmanager
def serving(log: Path, *arguments: object, model: Path | str = "clipita-mini") -> Generator[Server]:
    """Start `clipita serve`, and end it."""
    command = [sys.executable, "-c", "from clipita.cli.main import main; main()", "serve", "--port", "0"]
    environment = {**os.environ, "CLIPITA_MODEL": str(model)}
    with (
        log.open("w") as errors,
        subprocess.Popen(
            [*command, *map(str, arguments)], stdout=subprocess.PIPE, stderr=errors, text=True, env=environment
        ) as process,
    ):
        assert process.stdout is not None
        address = process.stdout.readline().strip()
        assert address.startswith("http"), log.read_text()
        try:
            yield Server(address, process, log)
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGTERM)
            process.wait(30)
