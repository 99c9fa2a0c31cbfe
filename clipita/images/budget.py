"""Big pictures wait for each other: those that threads decode at one time do not multiply what one of them may take."""

import contextlib
import threading
from collections.abc import Generator

from clipita.system.memory import give_back
from clipita.system.process import in_forked_children

# Bytes that all pictures together may take: as many as the largest alone, 178,956,970 pixels of 4 bytes.
TOTAL = 4 * 178_956_970
# Below this a picture is not counted, and waits for none: 5 megapixels of 4 bytes, which a JPEG of any size becomes on
# its way to a tower. 16 threads of such take half the total.
SMALL = TOTAL // 32
# From here on what a picture took is given back to the system before others go on: the C library keeps it for the
# thread that freed it, and each thread would come to keep as much. It takes some milliseconds.
_LARGE = 1 << 26


class _Shared:
    """What the threads of this process hold."""

    def __init__(self) -> None:
        self.taken = 0
        self.changed = threading.Condition()
        self.turn = threading.Lock()  # of the one that waits first: smaller ones do not overtake it for ever

    def take(self, size: int) -> None:
        """Wait for so many bytes; more than there are in all are had by one that is alone."""
        with self.turn, self.changed:
            self.changed.wait_for(lambda: self.taken == 0 or self.taken + size <= TOTAL)
            self.taken += size

    def give(self, size: int) -> None:
        with self.changed:
            self.taken -= size
            self.changed.notify_all()


class _Held(threading.local):
    """What this thread holds of `shared`; outside of `one_picture` there is nobody to give it back."""

    shared: _Shared | None = None
    size: int = 0


_shared = _Shared()
_held = _Held()


def _start_anew() -> None:
    """Forget, in a forked child, what threads hold that exist in its parent only."""
    global _shared
    _shared = _Shared()


in_forked_children(_start_anew)


@contextlib.contextmanager
def one_picture() -> Generator[None]:
    """Give back at the end what `reserve` took for the picture of this thread; within another, leave that to it."""
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
    """Wait until the picture that this thread works on may take so many bytes, within `one_picture`.

    A thread that asks for more than it holds gives that back first, so that none waits for another that waits for it.
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
