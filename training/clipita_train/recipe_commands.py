"""Commands whose options are those of the kind of recipe that they are given."""

from collections.abc import Mapping
from copy import copy
from functools import partial
from typing import Any

import click

import clipita_train.recipes
from clipita_train.concepts.recipe import Recipe
from clipita_train.pairs.recipe import PairRecipe
from clipita_train.recipe_files import recipe_module, recipe_names


class ByRecipe(click.Group):
    """`COMMAND RECIPE [OPTIONS]`: what follows a recipe's name are the options of its kind.

    Args:
        name: of the command.
        kinds: for each class of recipes the command that takes one, and its own options after it.
    """

    def __init__(self, name: str, kinds: Mapping[type, click.Command]) -> None:
        help = next(iter(kinds.values())).help
        super().__init__(name, help=help, subcommand_metavar="RECIPE [OPTIONS]...")
        self._kinds = kinds

    def list_commands(self, ctx: click.Context) -> list[str]:
        """The recipes that this command is for."""
        return [name for name in known_recipes() if isinstance(load_recipe(name).RECIPE, tuple(self._kinds))]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command:
        """The command for one recipe."""
        module = load_recipe(cmd_name)
        for kind, command in self._kinds.items():
            if isinstance(module.RECIPE, kind):
                assert command.callback is not None
                own = copy(command)
                own.name, own.callback = cmd_name, partial(command.callback, module.RECIPE)
                own.short_help = (module.__doc__ or "").partition("\n")[0]
                return own
        raise click.UsageError(f"{self.name} is not for {cmd_name!r}, but for: {', '.join(self.list_commands(ctx))}")


def known_recipes() -> list[str]:
    """Names of the recipes of this package."""
    return recipe_names(clipita_train.recipes)


def load_recipe(name: str) -> Any:
    """The module of a recipe, whose RECIPE it is: one of this package, or a Python file."""
    module = recipe_module(name, clipita_train.recipes)
    if module is None:
        raise click.BadParameter(f"{name!r} is no recipe; there are: {', '.join(known_recipes())}; or a Python file")
    if not isinstance(getattr(module, "RECIPE", None), (Recipe, PairRecipe)):
        raise click.BadParameter(f"{name!r} defines no RECIPE, a clipita_train.pairs.recipe.PairRecipe")
    return module
