"""Define the options, the errors and the printing that all commands share."""

import json
import re
from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from clipita.images.pixels import Crop
from clipita.loading.load import DEFAULT_MODEL
from clipita.locale.language import phrase

Command = TypeVar("Command", bound=Callable[..., Any])

# Characters that a terminal obeys instead of showing: control characters, line ends of Unicode, and those that turn the
# direction of writing, by which "gpj.exe" reads as "exe.jpg". Halves of surrogate pairs are bytes of no character.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def visible(text: str, *, keep: str = "") -> str:
    r"""Escape the characters that a terminal would obey, as Python does: `\x1b`.

    Args:
        text: Any text. Names of files and labels in it may hold such characters.
        keep: Characters that stay as they are.
    """

    def written(found: re.Match[str]) -> str:
        character = found[0]
        return character if character in keep else ascii(character)[1:-1]

    return _UNSEEN.sub(written, text)


def echo(line: str, *, err: bool = False) -> None:
    """Print one line of any text; characters that a terminal would obey are escaped."""
    click.echo(visible(line), err=err)


def echo_error(message: str) -> None:
    """Print an error with which a command goes on."""
    echo(phrase("Error: {message}", message=message), err=True)


class Unusable(click.ClickException):
    """Show a refusal of clipita on one line, with exit code 2."""

    exit_code = 2

    def __init__(self, message: str) -> None:
        super().__init__(visible(message))


def json_option(command: Command) -> Command:
    """Add the option that every command has."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(command)


def common_options(command: Command) -> Command:
    """Add the options of a command that runs a model."""
    return click.option(
        "--model",
        "-m",
        default=DEFAULT_MODEL,
        envvar="CLIPITA_MODEL",
        show_default=True,
        show_envvar=True,
        help="An embedded model, a folder, or a name on the hub.",
    )(json_option(command))


def crop_option(command: Command) -> Command:
    """Add the option of a command that looks at photographs."""
    return click.option(
        "--crop",
        type=click.Choice(get_args(Crop)),
        default="auto",
        show_default=True,
        help="The part of a photograph that the model sees: its middle square, all of it with gray beside it, or all "
        "of it square by square; auto takes tiles of panoramas and the center of all others.",
    )(command)


def number_between(least: float, most: float, what: str) -> Callable[[click.Context, click.Parameter, Any], Any]:
    """Return a callback that checks an option's number: within the bounds, and not nan, which click.FloatRange allows.

    Args:
        least: The smallest number allowed.
        most: The largest.
        what: What the number is, in the error.
    """

    def check(_: click.Context, __: click.Parameter, value: float | None) -> float | None:
        if value is not None and not least <= value <= most:
            message = phrase(
                "{value} is not {what}, from {least:g} to {most:g}",
                value=value,
                what=phrase(what),
                least=least,
                most=most,
            )
            raise click.BadParameter(message)
        return value

    return check


def photographs(count: int) -> str:
    """Return a number of photographs in words."""
    return phrase("1 photograph" if count == 1 else "{count:,} photographs", count=count)


def print_json(**values: Any) -> None:
    """Print one JSON object on one line."""
    click.echo(json.dumps(values))


def print_facts(facts: dict[str, Any]) -> None:
    """Print one line for each fact: its name, which is that in the JSON, and its value."""
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        shown: Any = ", ".join(map(str, value)) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        echo(f"{name:{width}}{shown}".rstrip())
