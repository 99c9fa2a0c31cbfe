"""Limit the memory of all pictures that threads decode at one time: large ones wait for each other."""

import contextlib
import threading
from collections.abc import Generator

from clipita.system.memory import give_back
from clipita.system.process import in_forked_children

# Bytes that all pictures together may take: as many as the largest one alone, 178,956,970 pixels of 4 bytes.
TOTAL = 4 * 178_956_970
# Pictures that take less than this are not counted and do not wait: 5 megapixels of 4 bytes, to which a JPEG of any
# size is shrunk as it is decoded for a tower. 16 threads with such pictures take half the total.
SMALL = TOTAL // 32
# The memory of pictures from this size on is given back to the system before others go on, which takes some
# milliseconds. The C library keeps freed memory for the thread that freed it, and each thread would come to keep as
# much.
_LARGE = 1 << 26


class _Shared:
    """The bytes that the threads of this process hold."""

    def __init__(self) -> None:
        self.taken = 0
        self.changed = threading.Condition()
        self.turn = threading.Lock()  # held by the first that waits: smaller ones do not overtake it for ever

    def take(self, size: int) -> None:
        """Wait until `size` bytes are free, and take them. More than the total is given to a thread that is alone."""
        with self.turn, self.changed:
            self.changed.wait_for(lambda: self.taken == 0 or self.taken + size <= TOTAL)
            self.taken += size

    def give(self, size: int) -> None:
        """Give bytes back, and wake the threads that wait."""
        with self.changed:
            self.taken -= size
            self.changed.notify_all()


class _Held(threading.local):
    """The bytes that this thread holds; outside of `one_picture` it takes none, since nothing would give them back."""

    shared: _Shared | None = None
    size: int = 0


_shared = _Shared()
_held = _Held()


def _start_anew() -> None:
    """Forget, in a forked child, the bytes of threads that exist in its parent only."""
    global _shared
    _shared = _Shared()


in_forked_children(_start_anew)


@contextlib.contextmanager
def one_picture() -> Generator[None]:
    """Give back at the end the bytes that `reserve` took for this thread's picture. Only the outermost use does so."""
    if _held.shared is _shared:
        yield
        return
    _held.shared, _held.size = _shared, 0
    try:
        yield
    finally:
        _let_others()
        _held.shared = None


def reserve(size: int) -> None:
    """Wait until this thread's picture may take so many bytes. Called within `one_picture`.

    A thread that asks for more than it holds gives its bytes back first, so that no two threads wait for each other.
    """
    if size < SMALL or size <= _held.size or _held.shared is not _shared:
        return
    _let_others()
    _shared.take(size)
    _held.size = size


def _let_others() -> None:
    if _held.size and _held.shared is _shared:
        if _held.size >= _LARGE:
            give_back()
        _shared.give(_held.size)
    _held.size = 0
