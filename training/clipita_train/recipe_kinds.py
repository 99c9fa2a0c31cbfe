"""Kinds of recipes, and the commands that take a recipe of any kind.

Each kind has a folder that holds `recipe.py` (the class of its recipes), `batches.py`, `run.py`, `export.py`, and
`cli.py`, which defines the `KIND`. `clipita_train.cli` lists the kinds.
"""

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import click

from clipita.errors import ClipitaError
from clipita_train.engine.recipe_files import recipe_module, recipe_names

Folder = click.Path(path_type=Path, file_okay=False)
ERRORS = (OSError, ValueError, FloatingPointError, ClipitaError)


@dataclass(frozen=True)
class Kind:
    """A class of recipes, and the commands that can be given one.

    Attributes:
        recipe: The class. A module defines a recipe by an instance of it called RECIPE.
        commands: The commands by name. Each gets the recipe as its first argument, before its options.
    """

    recipe: type
    commands: Mapping[str, click.Command]


with_set = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="E.g. train.stages.0.steps=500, or of mini members.0.train.stages.0.steps=500.",
)


def with_bundle(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options `--out`, the folder of the bundle, and `--revision`, its version."""
    revision = click.option("--revision", required=True, help="The version that the bundle states, e.g. a date.")
    return click.option("--out", type=Folder, required=True, help="The bundle goes here.")(revision(command))


def commands_by_recipe(kinds: Sequence[Kind], recipes: ModuleType) -> list[click.Command]:
    """Return a command `NAME RECIPE [OPTIONS]` for each name of a command that a kind has.

    Args:
        kinds: All kinds of recipes.
        recipes: A package whose modules each define a RECIPE of one of them.
    """
    names = dict.fromkeys(name for kind in kinds for name in kind.commands)
    return [_ByRecipe(name, kinds, recipes) for name in names]


class _ByRecipe(click.Group):
    """The group `NAME RECIPE [OPTIONS]`, in which each recipe is a command with the options of its kind."""

    def __init__(self, name: str, kinds: Sequence[Kind], recipes: ModuleType) -> None:
        self._load = partial(load_recipe, kinds=kinds, recipes=recipes)
        self._recipes = recipes
        self._kinds = {kind.recipe: kind.commands[name] for kind in kinds if name in kind.commands}
        help = next(iter(self._kinds.values())).help
        super().__init__(name, help=help, subcommand_metavar="RECIPE [OPTIONS]...")

    def list_commands(self, ctx: click.Context) -> list[str]:
        """List the recipes that this command is for."""
        names = recipe_names(self._recipes)
        return [name for name in names if isinstance(self._load(name).RECIPE, tuple(self._kinds))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """Return the command for one recipe."""
        module = self._load(cmd_name)
        for kind, command in self._kinds.items():
            if isinstance(module.RECIPE, kind):
                assert command.callback is not None
                own = copy(command)
                own.name, own.callback = cmd_name, partial(command.callback, module.RECIPE)
                own.short_help = (module.__doc__ or "").partition("\n")[0]
                return own
        raise click.UsageError(
            f"{self.name} does not take the recipe {cmd_name!r}, but these: {', '.join(self.list_commands(ctx))}"
        )


def load_recipe(name: str, kinds: Sequence[Kind], recipes: ModuleType) -> Any:
    """Import the module that defines a recipe.

    Args:
        name: The name of a module in the package `recipes`, or the path of a Python file.
        kinds: All kinds of recipes.
        recipes: The package.

    Raises:
        BadParameter: There is no such module or file, or it defines no RECIPE of one of the kinds.
    """
    module = recipe_module(name, recipes)
    if module is None:
        known = ", ".join(recipe_names(recipes))
        raise click.BadParameter(f"{name!r} is no recipe; there are: {known}; or a Python file")
    if not isinstance(getattr(module, "RECIPE", None), tuple(kind.recipe for kind in kinds)):
        classes = " or ".join(f"{kind.recipe.__module__}.{kind.recipe.__name__}" for kind in kinds)
        raise click.BadParameter(f"{name!r} defines no RECIPE that is a {classes}")
    return module
