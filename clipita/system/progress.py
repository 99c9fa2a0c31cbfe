"""Progress lines of long tasks, on standard error; they show on terminals only and are erased at the end."""

import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tqdm import tqdm


def counting(what: str, total: int) -> "tqdm[Any]":
    """Return a bar that counts up to `total`."""
    from tqdm import tqdm

    return tqdm(desc=what, total=total, disable=None, file=sys.stderr, leave=False)


def timing(what: str) -> "tqdm[Any]":
    """Return a line that says what is being done, and for how long already."""
    from tqdm import tqdm

    return tqdm(desc=what, disable=None, file=sys.stderr, leave=False, bar_format="{desc}: {elapsed}{postfix}")
