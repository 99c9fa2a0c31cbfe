"""Silence libtiff, which writes lines about damaged TIFFs to standard error without the name of the file.

Pillow has no setting for that. If its libtiff is a separate library, as in Pillow's wheels for Linux and macOS, its
handlers of errors and warnings can be removed; otherwise, as on Windows, its lines remain.
"""

import contextlib
import ctypes
from collections.abc import Generator
from functools import cache
from typing import Any

from PIL import Image


@cache
def _setters() -> tuple[Any, ...]:
    """Return the functions that set libtiff's handlers and return the old ones; none if they cannot be reached."""
    core: Any = Image.core
    try:
        # A symbol is looked for in the library and in those that it depends on.
        library = ctypes.CDLL(core.__file__)
        found = library.TIFFSetErrorHandler, library.TIFFSetWarningHandler
    except (AttributeError, OSError, TypeError):
        return ()
    for setter in found:
        setter.argtypes, setter.restype = [ctypes.c_void_p], ctypes.c_void_p
    return found


@contextlib.contextmanager
def without_messages() -> Generator[None]:
    """Keep libtiff from writing to standard error. This changes the whole process: use it in one thread at a time."""
    setters = _setters()
    before = [setter(None) for setter in setters]
    try:
        yield
    finally:
        for setter, handler in zip(setters, before, strict=True):
            setter(handler)
