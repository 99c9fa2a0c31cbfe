"""Give the commands of click their help in the language that is spoken."""

import copy
import inspect
from collections.abc import Callable
from typing import TypeVar

import click

Shown = TypeVar("Shown", bound=click.Command)


def translated(command: Shown, phrase: Callable[[str], str]) -> Shown:
    """Return a command, with all below it, whose help is translated; the given one stays as it is.

    Args:
        command: Any command.
        phrase: Translates one text: a help, without its indentation, or what stands for a value.
    """
    made = copy.copy(command)
    vars(made)["_help_option"] = None  # made anew by click, which keeps it
    made.help = phrase(inspect.cleandoc(command.help or ""))
    made.short_help = phrase(command.short_help or "")
    made.params = [_parameter(parameter, phrase) for parameter in command.params]
    if isinstance(made, click.Group):
        made.commands = {name: translated(below, phrase) for name, below in made.commands.items()}
        made.subcommand_metavar = phrase(made.subcommand_metavar)
    made.options_metavar = phrase(made.options_metavar or "")
    return made


def _parameter(parameter: click.Parameter, phrase: Callable[[str], str]) -> click.Parameter:
    made = copy.copy(parameter)
    made.type = copy.copy(parameter.type)
    made.type.name = phrase(made.type.name.upper()).lower()  # it stands for the value in the help, and in errors
    if isinstance(made, click.Option):
        made.help = phrase(made.help or "")
    if made.metavar is not None:
        made.metavar = phrase(made.metavar)
    return made
