"""Show how far a long command is, and keep its work when something ends it."""

import contextlib
import signal
import sys
import threading
from collections.abc import Generator
from typing import Any

import click
from tqdm import tqdm

from clipita.cli.options import echo, visible
from clipita.locale.language import phrase
from clipita.locale.recognition import of_file
from clipita.search.update import Progress


class ProgressBar(Progress):
    """Show a bar where standard error is a terminal, and always the images that failed."""

    def __init__(self) -> None:
        self._bar: Any = None

    def start(self, total: int, done: int) -> None:
        """Show how many files there are, and how many of them need not be read."""
        unit = f" {phrase('images')}"
        self._bar = tqdm(total=total, initial=done, unit=unit, miniters=1, disable=None, file=sys.stderr)

    def advance(self, count: int) -> None:
        """Show that more files are done."""
        with contextlib.suppress(OSError):  # a terminal that is gone does not stop the run
            self._bar.update(count)

    def fail(self, key: str, reason: str) -> None:
        """Print why a file cannot be read."""
        with contextlib.suppress(OSError):
            self._bar.write(visible(of_file(key, reason)), file=sys.stderr)

    def __enter__(self) -> "ProgressBar":
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            with contextlib.suppress(OSError):
                self._bar.close()


class Stopped(KeyboardInterrupt):
    """Says which signal interrupted."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


@contextlib.contextmanager
def signals_interrupt() -> Generator[None]:
    """Let the signals that end a process (`docker stop`, a closed terminal) interrupt it as Ctrl-C does.

    The work that is done is then kept. Only the first signal interrupts: systemd sends SIGHUP after SIGTERM, and the
    second must not stop the writing that the first began. A second Ctrl-C does stop it. A signal that is ignored
    already, such as SIGHUP below `nohup`, stays ignored.
    """
    taken: dict[int, Any] = {}

    def stop(number: int, _: Any) -> None:
        for other in taken:
            signal.signal(other, signal.default_int_handler if other == signal.SIGINT else signal.SIG_IGN)
        raise Stopped(number)

    if threading.current_thread() is threading.main_thread():  # Python sets handlers in this thread alone
        for name in ("SIGINT", "SIGTERM", "SIGHUP", "SIGBREAK"):  # Windows sends the last when a console is closed
            number = getattr(signal, name, None)
            if number is not None and signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                taken[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        for number, before in taken.items():
            signal.signal(number, before)


@contextlib.contextmanager
def kept_when_stopped(advice: str) -> Generator[None]:
    """End the command with the status of the signal that stopped it, after the work that is done was kept.

    Args:
        advice: What to do then; it is printed.
    """
    try:
        with signals_interrupt():
            yield
    except KeyboardInterrupt as stopped:
        with contextlib.suppress(OSError):  # the signal may mean that the terminal is gone
            echo(advice, err=True)
        number = stopped.number if isinstance(stopped, Stopped) else signal.SIGINT
        raise click.exceptions.Exit(128 + number) from None
