"""`clipita-train`: from photographs on disk to a bundle, one command a step."""

import importlib
import pkgutil
from collections.abc import Callable
from pathlib import Path

import click
import jax
import numpy as np

import clipita
import training.recipes
from clipita.convert.export import Provenance
from clipita.errors import ClipitaError
from training.config import replace_from_strings
from training.data.builder.cli import data
from training.data.manifest import counts, read_manifest
from training.evaluate.cli import evaluate
from training.export import export
from training.material import LeftOut
from training.mesh import join_processes
from training.recipe import Corpus, Recipe, load_towers, prepare
from training.run import Trained, run_folder, train
from training.sheet import augment_sheet

Folder = click.Path(path_type=Path, file_okay=False)
File = click.Path(path_type=Path, dir_okay=False, exists=True)


def _recipe(_: click.Context, __: click.Parameter, name: str) -> Recipe:
    known = [module.name for module in pkgutil.iter_modules(training.recipes.__path__)]
    if name not in known:
        raise click.BadParameter(f"{name!r} is no recipe; there are: {', '.join(known)}")
    return importlib.import_module(f"training.recipes.{name}").RECIPE


def _with_corpus(command: Callable[..., None]) -> Callable[..., None]:
    """The arguments that say what a recipe works on."""
    for option in reversed(
        [
            click.argument("recipe", callback=_recipe),
            click.option("--root", type=Folder, required=True, help="Holds the clones, as OWNER/NAME."),
            click.option("--work", type=Folder, required=True, help="Manifest, cached features and runs go here."),
            click.option("--nouns", type=File, required=True, help="WordNet 3.0's data.noun."),
            click.option("--omw", type=Folder, required=True, help="The folder wns of omw-data."),
        ]
    ):
        command = option(command)
    return command


def _left_out(_: click.Context, __: click.Parameter, text: str | None) -> LeftOut | None:
    if text is None:
        return None
    source, _, more = text.partition(":")
    if more not in ("", "classes"):
        raise click.BadParameter(f"expected SOURCE or SOURCE:classes, not {text!r}")
    return LeftOut(source, classes=bool(more))


_with_left_out = click.option(
    "--leave-out",
    "left_out",
    metavar="SOURCE[:classes]",
    callback=_left_out,
    help="The run without the photographs of this source; with :classes, without any of what they show.",
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(clipita.__version__)
@click.option("--coordinator", metavar="HOST:PORT", help="Of the first of several processes that train together.")
@click.option("--processes", type=click.IntRange(1), default=1, show_default=True, help="How many they are.")
@click.option("--process", type=click.IntRange(0), default=0, show_default=True, help="Which of them this is, from 0.")
def main(coordinator: str | None, processes: int, process: int) -> None:
    """Train Italian image-text models."""
    if (coordinator is None) != (processes == 1) or process >= processes:
        raise click.UsageError("several processes need all of --coordinator, --processes N and --process below N")
    if coordinator is not None:
        join_processes(coordinator, processes, process)


@main.command()
@click.argument("recipe", callback=_recipe)
@click.option("--root", type=Folder, default=Path("photographs"), help="Where you keep the clones.")
def sources(recipe: Recipe, root: Path) -> None:
    """Print how to get what a recipe learns from, and on what terms."""
    for source in recipe.sources:
        click.echo(f"# {source.name}: {source.licence}\n{source.clone_command(root)}")


@main.command("prepare")
@click.argument("recipe", callback=_recipe)
@click.option("--root", type=Folder, required=True, help="Holds the clones, as OWNER/NAME.")
@click.option("--work", type=Folder, required=True, help="The manifest goes here.")
@click.option("--without", multiple=True, help="Leave a source out; may be repeated.")
def prepare_command(recipe: Recipe, root: Path, work: Path, without: tuple[str, ...]) -> None:
    """List the photographs to learn from, without repeats and without those of the development sets."""
    try:
        left_out = prepare(recipe, root, work, without=without)
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    for (source, split), count in counts(read_manifest(work / "manifest.jsonl")).items():
        click.echo(f"{count:7,} {split:5} {source}")
    click.echo(f"left out: {left_out}; see {work / 'manifest.left-out.txt'}")


@main.command()
@_with_corpus
@click.option("--set", "assignments", multiple=True, metavar="NAME=VALUE", help="E.g. train.stages.0.steps=500.")
@_with_left_out
@click.option("--resume", is_flag=True, help="Go on with the run in WORK.")
def run(
    recipe: Recipe,
    root: Path,
    work: Path,
    nouns: Path,
    omw: Path,
    assignments: tuple[str, ...],
    left_out: LeftOut | None,
    resume: bool,
) -> None:
    """Train on a prepared manifest; features that are in WORK already are not computed again."""
    try:
        recipe = replace_from_strings(recipe, assignments)
        corpus = Corpus(recipe, load_towers(recipe), root, nouns, omw, work)
        trained = train(corpus, left_out=left_out, resume=resume)
    except (FileNotFoundError, FileExistsError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    if jax.process_index():
        return  # all of them have the same; the first writes it
    out = run_folder(work, left_out) / "projections.npz"
    np.savez(out, logit_scale=trained.logit_scale, **trained.projections)  # pyright: ignore
    click.echo(f"wrote {out}, logit scale {trained.logit_scale:g}")


@main.command("export")
@_with_corpus
@_with_left_out
@click.option("--out", type=Folder, required=True, help="The bundle goes here.")
@click.option("--revision", required=True, help="What the bundle says of its version, e.g. a date.")
def export_command(
    recipe: Recipe,
    root: Path,
    work: Path,
    nouns: Path,
    omw: Path,
    left_out: LeftOut | None,
    out: Path,
    revision: str,
) -> None:
    """Make a bundle of the towers and the trained projections."""
    try:
        projections = run_folder(work, left_out) / "projections.npz"
        if not projections.is_file():
            raise FileNotFoundError(f"no trained projections at {projections}: finish clipita-train run first")
        with np.load(projections, allow_pickle=False) as arrays:
            weights = dict(arrays)
        trained = Trained(weights, float(weights.pop("logit_scale")))
        corpus = Corpus(recipe, load_towers(recipe), root, nouns, omw, work)
        provenance = Provenance(recipe.name, recipe.licence, f"clipita-train run, recipe {recipe.name}", revision)
        made = export(corpus, trained, out, provenance)
    except (FileNotFoundError, ValueError, ClipitaError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {out}: {made.size / 1e6:.2f} MB, {made.pieces:,} pieces, backends agree to {made.agreement:.6f}")


main.add_command(augment_sheet)
main.add_command(data)
main.add_command(evaluate)
