"""What the commands have in common: options, refusals, and JSON."""

import json
from collections.abc import Callable
from typing import Any, TypeVar

import click

from clipita.model import DEFAULT_MODEL

Command = TypeVar("Command", bound=Callable[..., Any])


class Unusable(click.ClickException):
    """What clipita refuses, shown as one line."""

    exit_code = 2


def json_option(command: Command) -> Command:
    """The option that every command has."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object instead of text.")(command)


def common_options(command: Command) -> Command:
    """The options of a command that runs a model."""
    return click.option(
        "--model",
        "-m",
        default=DEFAULT_MODEL,
        envvar="CLIPITA_MODEL",
        show_default=True,
        show_envvar=True,
        help="An embedded model, a folder, or a name on the hub.",
    )(json_option(command))


def print_json(**values: Any) -> None:
    """One object on one line."""
    click.echo(json.dumps(values))


def print_facts(facts: dict[str, Any]) -> None:
    """One line for each."""
    width = max(map(len, facts)) + 2
    for name, value in facts.items():
        shown: Any = ", ".join(map(str, value)) if isinstance(value, list) else value  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        click.echo(f"{name:{width}}{shown}".rstrip())
