"""Show photographs in terminals that can: kitty's and iTerm2's ways, which Ghostty, WezTerm and Konsole know too."""

import base64
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Literal, TypeAlias

import click

from clipita.cli.options import Unusable, echo
from clipita.errors import ImageError
from clipita.locale.language import phrase
from clipita.locale.recognition import of_file
from clipita.search.contact_sheet import thumbnail

Protocol: TypeAlias = Literal["kitty", "iterm2"]

_SIDE = 320  # pixels
_ROWS = 10  # of the terminal
_CHUNK = 4096  # bytes in one of kitty's messages, its limit


def protocol_of(environment: Mapping[str, str]) -> Protocol | None:
    """Return how a terminal shows pictures, by what it says of itself; None of one that does not.

    Source: sw.kovidgoyal.net/kitty/graphics-protocol, iterm2.com/documentation-images.html.
    """
    program = environment.get("TERM_PROGRAM", "").lower()
    if "KITTY_WINDOW_ID" in environment or "kitty" in environment.get("TERM", "") or program == "ghostty":
        return "kitty"
    if program in ("iterm.app", "wezterm", "mintty", "vscode") or "KONSOLE_VERSION" in environment:
        return "iterm2"
    return None


def show(path: Path, protocol: Protocol) -> None:
    """Print a photograph where the cursor is; of one that is gone or damaged since, its error."""
    try:
        data = thumbnail(path, _SIDE, "PNG" if protocol == "kitty" else "JPEG")
    except ImageError as error:
        echo(of_file(str(path), str(error).removeprefix(str(path)).lstrip()), err=True)
        return
    click.echo(picture_codes(data, protocol))


def picture_codes(data: bytes, protocol: Protocol) -> str:
    """Return what a terminal shows as a picture of ten rows: escape codes around a file, which for kitty is a PNG."""
    text = base64.b64encode(data).decode()
    if protocol == "iterm2":
        return f"\x1b]1337;File=inline=1;height={_ROWS};size={len(data)}:{text}\x07"
    chunks = [text[start : start + _CHUNK] for start in range(0, len(text), _CHUNK)]
    codes: list[str] = []
    for number, chunk in enumerate(chunks):
        first = f"a=T,f=100,r={_ROWS}," if number == 0 else ""
        codes.append(f"\x1b_G{first}m={int(number + 1 < len(chunks))};{chunk}\x1b\\")
    return "".join(codes)


def require_protocol() -> Protocol:
    """Return how this terminal shows pictures.

    Raises:
        Unusable: it does not, as far as it says.
    """
    found = protocol_of(os.environ) if sys.stdout.isatty() else None
    if found is None:
        raise Unusable(
            phrase(
                "this terminal shows no pictures, as far as it says (kitty, Ghostty, iTerm2, WezTerm, Konsole and "
                "Visual Studio Code do). Write a page instead: --html FILE"
            )
        )
    return found
