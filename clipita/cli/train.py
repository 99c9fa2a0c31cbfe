"""Where the command `clipita-train` begins, so that it can say what to install where training cannot be imported."""

import sys

from clipita.cli.options import echo


def main() -> None:
    """Run `clipita-train`, or say on one line, with exit code 2, that it needs its extra."""
    try:
        from clipita_train.cli import main as train  # pyright: ignore[reportUnknownVariableType]

        train()
    except ModuleNotFoundError as error:
        name = error.name or ""
        if name.partition(".")[0] in ("clipita", "clipita_train"):  # a mistake of ours, and no extra brings it
            raise
        message = str(error)
        if "pip install" not in message:
            message = f"there is no module {name!r}; what clipita-train needs comes with pip install 'clipita[train]'"
        echo(f"Error: {message}", err=True)
        sys.exit(2)
