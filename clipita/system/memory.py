"""Give freed memory back to the system."""

import ctypes
import sys
from functools import cache
from typing import Any


@cache
def _trim() -> Any:
    """Return glibc's malloc_trim, or None for other C libraries, whose allocators give memory back by themselves."""
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None


def give_back() -> None:
    """Let the C library give freed memory back. It takes some milliseconds, and slows the next large allocation.

    glibc otherwise keeps freed memory that lies below memory in use: 30 MB of 149 after the embedded image tower is
    loaded, and 65 MB of 184 after batches of 32 images.
    """
    trim = _trim()
    if trim is not None:
        trim(0)
