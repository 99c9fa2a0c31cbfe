"""Record the software of a run: versions of the packages that decide its numbers, and the commit of the code."""

import platform
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("clipita", "flax", "grain", "jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "pillow", "tokenizers")


def software() -> dict[str, str | None]:
    """Return versions by name, None for what is not installed. "commit" ends in "+" if files differ from the commit."""
    versions: dict[str, str | None] = {"python": platform.python_version(), "commit": _commit()}
    for name in PACKAGES:
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = None
    return versions


def _commit() -> str | None:
    """Return the commit of the checkout that this file is in; None for an installed package."""
    folder = Path(__file__).parent

    def git(*arguments: str) -> str | None:
        try:
            done = subprocess.run(["git", *arguments], cwd=folder, capture_output=True, text=True, check=True)
        except (OSError, subprocess.CalledProcessError):
            return None
        return done.stdout.strip()

    if git("ls-files", "--error-unmatch", Path(__file__).name) is None:  # not a file of a checkout
        return None
    commit, changed = git("rev-parse", "HEAD"), git("status", "--porcelain", "--untracked-files=no")
    return f"{commit}+" if commit and changed else commit
