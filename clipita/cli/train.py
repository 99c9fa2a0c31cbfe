"""Start the command `clipita-train`, or say what to install where its packages are missing."""

import sys

from clipita.cli.options import echo


def main() -> None:
    """Run `clipita-train`, or print on one line which extra it needs, and exit with 2."""
    try:
        from clipita_train.cli import main as train  # pyright: ignore[reportUnknownVariableType]

        train()
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name.partition(".")[0] in ("clipita", "clipita_train"):  # our own mistake, which no extra mends
            raise
        message = str(error)
        if "pip install" not in message:
            message = f"there is no module {name!r}; what clipita-train needs comes with pip install 'clipita[train]'"
        echo(f"Error: {message}", err=True)
        sys.exit(2)
