"""What a model card (README.md) says about the licence, in the lines between its first two "---"."""

import re
from pathlib import Path

_MAX_BYTES = 1 << 20
_FRONT_MATTER = re.compile(r"\A\ufeff?---\s*\n(.*?)\n---\s*(?:\n|\Z)", re.DOTALL)


def license_of(folder: Path) -> str | None:
    """The licence's identifier on the hub ("gpl-3.0"), or its name where that is "other"; None if nothing is said."""
    try:
        with (folder / "README.md").open("rb") as file:
            text = file.read(_MAX_BYTES).decode("utf-8", "replace").replace("\r\n", "\n")
    except OSError:
        return None
    front = _FRONT_MATTER.match(text)
    if front is None:
        return None
    stated = _field(front[1], "license")
    return (_field(front[1], "license_name") or stated) if stated == "other" else stated


def _field(front: str, key: str) -> str | None:
    """A scalar of the first level, or the only item of a list: all that a licence is written as."""
    found = re.search(rf"^{key}:[ \t]*(?:\n[ \t]*-[ \t]*)?(.*)$", front, re.MULTILINE)
    value = re.sub(r"\s+#.*", "", found[1]).strip().strip("[]'\"") if found else ""
    return value or None
