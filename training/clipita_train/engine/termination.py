"""SIGTERM, which schedulers send before they kill: leave soon, but not without saving."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

TERMINATED = 128 + signal.SIGTERM  # 143, the exit status that says so


@contextmanager
def on_sigterm() -> Generator[list[int]]:
    """A list that is no longer empty once SIGTERM has come; a second one kills as usual.

    Python takes signals in the main thread only: in any other the list stays empty and SIGTERM does what it did.
    """
    received: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield received
        return

    def receive(number: int, _: Any) -> None:
        received.append(number)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)

    before = signal.signal(signal.SIGTERM, receive)
    try:
        yield received
    finally:
        signal.signal(signal.SIGTERM, before)
