"""Commands whose options are those of the kind of recipe that they are given."""

import importlib.util
import pkgutil
from collections.abc import Mapping
from copy import copy
from functools import partial
from pathlib import Path
from typing import Any

import click

import training.recipes
from training.pair_recipe import PairRecipe
from training.recipe import Recipe


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
    return [module.name for module in pkgutil.iter_modules(training.recipes.__path__)]


def load_recipe(name: str) -> Any:
    """The module of a recipe, whose RECIPE it is: one of this package, or a Python file."""
    if name in known_recipes():
        return importlib.import_module(f"training.recipes.{name}")
    path = Path(name)
    if path.suffix != ".py" or not path.is_file():
        raise click.BadParameter(f"{name!r} is no recipe; there are: {', '.join(known_recipes())}; or a Python file")
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not isinstance(getattr(module, "RECIPE", None), (Recipe, PairRecipe)):
        raise click.BadParameter(f"{name!r} defines no RECIPE, a training.pair_recipe.PairRecipe")
    return module
