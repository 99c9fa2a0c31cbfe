"""Kinds of recipes: a third one is a folder with a class, its commands and a KIND, and a name in a list."""

from dataclasses import dataclass
from pathlib import Path

import click
import pytest
from click.testing import CliRunner
from clipita_train.cli import KINDS, command_line
from clipita_train.engine.config import replace_from_strings
from clipita_train.recipe_kinds import Folder, Kind, with_bundle, with_set

# These would be recipe.py, run.py, export.py and cli.py of a new folder, `clipita_train/means/`: a "training" that
# takes the mean of some numbers.


@dataclass(frozen=True)
class MeanRecipe:
    """A recipe of the third kind."""

    name: str
    numbers: tuple[float, ...]
    scale: float = 1.0


@click.command()
@click.option("--out", type=Folder, required=True, help="The mean goes here.")
@with_set
def run(recipe: MeanRecipe, out: Path, assignments: tuple[str, ...]) -> None:
    """Take the mean."""
    recipe = replace_from_strings(recipe, assignments)
    out.mkdir()
    (out / "mean.txt").write_text(str(recipe.scale * sum(recipe.numbers) / len(recipe.numbers)))


@click.command()
@click.option("--run", "run_folder", type=Folder, required=True, help="What was given to run as --out.")
@with_bundle
def export(recipe: MeanRecipe, run_folder: Path, out: Path, revision: str) -> None:
    """Write the mean for users."""
    out.mkdir()
    (out / "bundle.txt").write_text(f"{recipe.name} {revision}: {(run_folder / 'mean.txt').read_text()}")


@click.command()
def explain(recipe: MeanRecipe) -> None:
    """Say what would be done, which no other kind of recipe can."""
    click.echo(f"the mean of {len(recipe.numbers)} numbers")


KIND = Kind(MeanRecipe, {"run": run, "export": export, "explain": explain})


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "three.py"
    path.write_text(f"from {__name__} import MeanRecipe\n\nRECIPE = MeanRecipe('three', (1.0, 2.0, 6.0))\n")
    return path


def test_a_third_kind_of_recipe_has_all_commands_that_it_brings(recipe: Path, tmp_path: Path) -> None:
    main = command_line((*KINDS, KIND))

    def call(*arguments: object) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments])
        assert result.exit_code == 0, result.output
        return result.output

    call("run", recipe, "--out", tmp_path / "run", "--set", "scale=2.0")
    assert (tmp_path / "run/mean.txt").read_text() == "6.0"
    call("export", recipe, "--run", tmp_path / "run", "--out", tmp_path / "bundle", "--revision", "1")
    assert (tmp_path / "bundle/bundle.txt").read_text() == "three 1: 6.0"
    assert call("explain", recipe) == "the mean of 3 numbers\n"
    assert "Take the mean." in call("run", recipe, "--help")
    assert "mini" in call("run", "--help")  # those of the others are still there


def test_commands_say_which_recipes_they_are_for(recipe: Path, tmp_path: Path) -> None:
    main = command_line((*KINDS, KIND))
    result = CliRunner().invoke(main, ["explain", "mini"])
    assert result.exit_code == 2
    assert "explain does not take the recipe 'mini'" in result.output
    result = CliRunner().invoke(main, ["prepare", str(recipe)])
    assert result.exit_code == 2
    assert "prepare does not take the recipe" in result.output
    result = CliRunner().invoke(command_line(KINDS), ["run", str(recipe)])
    assert result.exit_code == 2
    assert (
        "defines no RECIPE that is a clipita_train.concepts.recipe.Recipe or clipita_train.pairs.recipe.PairRecipe"
        in (" ".join(result.output.split()))
    )


def test_twins_have_the_same_files() -> None:
    package = Path(__import__("clipita_train").__file__).parent
    for kind in ("concepts", "pairs"):
        for name in ("recipe", "batches", "run", "export", "cli"):
            assert (package / kind / f"{name}.py").is_file(), f"{kind} has no {name}.py"
