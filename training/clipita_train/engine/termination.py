"""Handle SIGTERM, which schedulers send before they kill a process: save, then leave."""

import signal
import threading
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

TERMINATED = 128 + signal.SIGTERM  # 143, the usual exit status after SIGTERM


@contextmanager
def on_sigterm() -> Generator[list[int]]:
    """Give a list that is no longer empty once SIGTERM has come; a second SIGTERM kills as usual.

    Python handles signals in the main thread only. In any other thread the list stays empty, and SIGTERM kills as
    before.
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
