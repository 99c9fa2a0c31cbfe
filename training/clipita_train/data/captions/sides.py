"""Find captions that say left or right; their photographs must not be mirrored."""

import re

_SIDE = re.compile(r"\b(destr|sinistr)(a|o|e|i|orso)\b", re.IGNORECASE)


def names_a_side(caption: str) -> bool:
    """Return whether an Italian caption says left or right, so that its photograph must not be mirrored."""
    return _SIDE.search(caption) is not None
