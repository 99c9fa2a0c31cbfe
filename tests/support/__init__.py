"""Help the tests: small models, stand-ins for the hub and the web, files that mean harm; no tests of their own."""

import os
from pathlib import Path

TESTS = Path(__file__).parents[1]
ROOT = TESTS.parent
PHOTOS = ROOT / "examples" / "photos"
DATA = TESTS / "data"


def environment(**changes: str) -> dict[str, str]:
    """Return the environment of a process that can import `support` too, with changes."""
    path = os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path.rstrip(os.pathsep), **changes}
