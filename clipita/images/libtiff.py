"""Silence libtiff: it writes lines about damaged TIFFs to standard error, and does not say of which file.

Nothing in Pillow turns that off. Where its libtiff is a library of its own, as in Pillow's wheels for Linux and macOS,
what it reports errors and warnings by can be taken away; where it is not, as on Windows, its lines remain.
"""

import contextlib
import ctypes
from collections.abc import Generator
from functools import cache
from typing import Any

from PIL import Image


@cache
def _setters() -> tuple[Any, ...]:
    """Functions that set what libtiff reports by, and return what was set before; none where they cannot be reached."""
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
    """Keep libtiff from writing to standard error. It is a setting of the process: one thread at a time."""
    setters = _setters()
    before = [setter(None) for setter in setters]
    try:
        yield
    finally:
        for setter, handler in zip(setters, before, strict=True):
            setter(handler)
