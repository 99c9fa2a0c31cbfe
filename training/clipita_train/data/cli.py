"""The commands `clipita-train data`, which make shards for training from published files."""

import os
from pathlib import Path

import click

import clipita_train.data.recipes
from clipita.errors import ClipitaError
from clipita_train.data.audit.cli import audit_group
from clipita_train.data.builder.build import build
from clipita_train.data.builder.recipe import DataRecipe
from clipita_train.data.builder.runners import LocalRunner, RayRunner
from clipita_train.data.builder.summary import as_text
from clipita_train.data.pairs.fetch import Settings
from clipita_train.data.report.write import write_report
from clipita_train.engine.config import replace_from_strings
from clipita_train.engine.recipe_files import recipe_module, recipe_names

Folder = click.Path(path_type=Path, file_okay=False)


def _recipe(_: click.Context, __: click.Parameter, name: str) -> DataRecipe:
    """Find a data recipe by its name in the package, or in a Python file that defines RECIPE."""
    module = recipe_module(name, clipita_train.data.recipes)
    if module is None and name.endswith(".py"):
        raise click.BadParameter(f"there is no file {name}")
    if module is None:
        known = ", ".join(recipe_names(clipita_train.data.recipes))
        raise click.BadParameter(f"{name!r} is no recipe and no .py file; there are: {known}")
    found = getattr(module, "RECIPE", None)
    if not isinstance(found, DataRecipe):
        raise click.BadParameter(f"{name} has no DataRecipe called RECIPE")
    return found


@click.group()
def data() -> None:
    """Make data sets of photographs and captions."""


@data.command("build")
@click.argument("recipe", callback=_recipe)
@click.option("--root", type=Folder, required=True, help="The folder that the recipe's files are in.")
@click.option(
    "--out", type=Folder, required=True, help="The folder of the data set; an unfinished build in it is continued."
)
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="E.g. sources.0.rules.min_side=200.")
@click.option(
    "--contact", help="Your mail address or web page, told to hosts of images; without it nothing is downloaded."
)
@click.option("--runner", type=click.Choice(["local", "ray"]), default="local", show_default=True)
@click.option(
    "--workers", type=click.IntRange(1), help="Number of processes; by default the CPUs that this one may use."
)
def build_command(
    recipe: DataRecipe,
    root: Path,
    out: Path,
    assignments: tuple[str, ...],
    contact: str | None,
    runner: str,
    workers: int | None,
) -> None:
    """Read, filter, deduplicate and split the sources of RECIPE, and write shards to train on."""
    count = workers or len(os.sched_getaffinity(0))
    try:
        recipe = replace_from_strings(recipe, assignments)
        downloads = Settings(contact, max_side=recipe.max_side) if contact is not None else None
        with LocalRunner(count) if runner == "local" else RayRunner(count) as chosen:
            summary = build(recipe, root, out, chosen, downloads=downloads)
        report = write_report(out, root)
    except ModuleNotFoundError:  # the command line itself says what to install
        raise
    except (OSError, ValueError, LookupError, ImportError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(as_text(summary["sources"]))
    click.echo(f"wrote {out}, build {summary['build']}; see {report}")


@data.command("report")
@click.argument("out", type=Folder)
@click.option("--root", type=Folder, help="The folder of the sources, to show photographs that were not kept.")
def report_command(out: Path, root: Path | None) -> None:
    """Write OUT/report.html again: the rows that went into a build and came out of it, with pictures."""
    try:
        report = write_report(out, root)
    except (OSError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {report}")


data.add_command(audit_group)
