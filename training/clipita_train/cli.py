"""`clipita-train`: from photographs on disk to a bundle, one command a step."""

import json
from collections.abc import Callable
from pathlib import Path

import click
import jax
import numpy as np

import clipita
from clipita.convert.export import Provenance
from clipita.errors import ClipitaError
from clipita_train.augment.sheet import augment_sheet
from clipita_train.concepts.export import export
from clipita_train.concepts.material import LeftOut
from clipita_train.concepts.recipe import Corpus, Recipe, load_towers, prepare
from clipita_train.concepts.run import Trained, run_folder, train
from clipita_train.data.builder.cli import data
from clipita_train.data.labelled import labelled_pairs
from clipita_train.data.manifest import counts, read_manifest
from clipita_train.engine.config import replace_from_strings
from clipita_train.engine.files import written_whole
from clipita_train.engine.mesh import join_processes
from clipita_train.evaluate.cli import evaluate
from clipita_train.pairs import export as pair_export
from clipita_train.pairs import run as pair_run
from clipita_train.pairs.recipe import PairRecipe
from clipita_train.recipe_commands import ByRecipe
from clipita_train.towers.pretrained import image_tower_of

MANIFEST = "manifest.jsonl"
Folder = click.Path(path_type=Path, file_okay=False)
ERRORS = (OSError, ValueError, FloatingPointError, ClipitaError)
File = click.Path(path_type=Path, dir_okay=False, exists=True)


def _with_corpus(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say what a recipe for projections works on."""
    for option in reversed(
        [
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


_with_set = click.option(
    "--set",
    "assignments",
    multiple=True,
    metavar="NAME=VALUE",
    help="E.g. train.stages.0.steps=500, or of mini members.0.train.stages.0.steps=500.",
)
_with_left_out = click.option(
    "--leave-out",
    "left_out",
    metavar="SOURCE[:classes]",
    callback=_left_out,
    help="The run without the photographs of this source; with :classes, without any of what they show.",
)


def _with_bundle(command: Callable[..., None]) -> Callable[..., None]:
    """Where the bundle goes, and what it says of itself."""
    revision = click.option("--revision", required=True, help="What the bundle says of its version, e.g. a date.")
    return click.option("--out", type=Folder, required=True, help="The bundle goes here.")(revision(command))


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


@click.command()
@click.option("--root", type=Folder, default=Path("photographs"), help="Where you keep the clones.")
def sources(recipe: Recipe, root: Path) -> None:
    """Print how to get what a recipe learns from, and on what terms."""
    for source in recipe.sources:
        click.echo(f"# {source.name}: {source.licence}\n{source.clone_command(root)}")


@click.command()
@click.option("--root", type=Folder, required=True, help="Holds the clones, as OWNER/NAME.")
@click.option("--work", type=Folder, required=True, help="The manifest goes here.")
@click.option("--without", multiple=True, help="Leave a source out; may be repeated.")
def prepare_command(recipe: Recipe, root: Path, work: Path, without: tuple[str, ...]) -> None:
    """List the photographs to learn from, without repeats and without those of the development sets."""
    try:
        left_out = prepare(recipe, root, work, without=without)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    for (source, split), count in counts(read_manifest(work / MANIFEST)).items():
        click.echo(f"{count:7,} {split:5} {source}")
    click.echo(f"left out: {left_out}; see {work / 'manifest.left-out.txt'}")


@click.command()
@click.option("--work", type=Folder, required=True, help="The folder with the manifest.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="The list goes here.")
@click.option("--each", type=click.IntRange(1), help="At most so many photographs of a concept.")
def pairs(_: Recipe, work: Path, out: Path, each: int | None) -> None:
    """List the prepared photographs with Italian captions, for recipes that learn from pairs."""
    try:
        lines = [
            json.dumps(pair, ensure_ascii=False) for pair in labelled_pairs(read_manifest(work / MANIFEST), each=each)
        ]
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    with written_whole(out) as partial:
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    click.echo(f"wrote {out}: {len(lines):,} photographs")


@click.command()
@_with_corpus
@_with_set
@_with_left_out
@click.option("--tower", type=Folder, help="A bundle whose image tower to take: only the projections are trained then.")
@click.option("--resume", is_flag=True, help="Go on with the run in WORK.")
def run_projections(
    recipe: Recipe,
    root: Path,
    work: Path,
    nouns: Path,
    omw: Path,
    assignments: tuple[str, ...],
    left_out: LeftOut | None,
    tower: Path | None,
    resume: bool,
) -> None:
    """Train. Features that are in WORK already are not computed again."""
    try:
        recipe = replace_from_strings(recipe, assignments)
        corpus = Corpus(recipe, load_towers(recipe), root, nouns, omw, work)
        taken = None if tower is None else image_tower_of(tower, corpus.towers.config.image)
        trained = train(corpus, tower=taken, left_out=left_out, resume=resume)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    if jax.process_index():
        return  # all of them have the same; the first writes it
    out = run_folder(work, left_out) / "projections.npz"
    np.savez(out, logit_scale=trained.logit_scale, **trained.weights)  # pyright: ignore
    click.echo(f"wrote {out}, logit scale {trained.logit_scale:g}")


@click.command()
@_with_corpus
@_with_left_out
@_with_bundle
def export_projections(
    recipe: Recipe,
    root: Path,
    work: Path,
    nouns: Path,
    omw: Path,
    left_out: LeftOut | None,
    out: Path,
    revision: str,
) -> None:
    """Make a bundle of what was trained, and check it."""
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
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {out}: {made.size / 1e6:.2f} MB, {made.pieces:,} pieces, backends agree to {made.agreement:.6f}")


@click.command()
@click.option("--out", type=Folder, required=True, help="Metrics and checkpoints go here.")
@_with_set
@click.option("--resume", is_flag=True, help="Go on with the run in OUT, if there is one.")
@click.option("--tensorboard", is_flag=True, help="Write files for TensorBoard too.")
def run_pairs(recipe: PairRecipe, out: Path, assignments: tuple[str, ...], resume: bool, tensorboard: bool) -> None:
    """Train."""
    try:
        recipe = replace_from_strings(recipe, assignments)
        pair_run.train(recipe, out, resume=resume, tensorboard=tensorboard)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    if jax.process_index() == 0:
        click.echo(f"trained {recipe.name} in {out}; next: clipita-train export")


@click.command()
@click.option("--run", "run_folder", type=Folder, required=True, help="The folder that was given to run as --out.")
@_with_set
@_with_bundle
@click.option("--transformers", type=Folder, help="Write a VisionTextDualEncoder of transformers here too.")
def export_pairs(
    recipe: PairRecipe,
    run_folder: Path,
    assignments: tuple[str, ...],
    out: Path,
    revision: str,
    transformers: Path | None,
) -> None:
    """Make a bundle of what was trained, and check it. Give the same --set as to run."""
    try:
        recipe = replace_from_strings(recipe, assignments)
        made = pair_export.export(recipe, run_folder, out, revision=revision, transformers=transformers)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {out}: {made.size / 1e6:.2f} MB, cosines to the trained towers of at least {made.agreement:.6f}")


main.add_command(ByRecipe("sources", {Recipe: sources}))
main.add_command(ByRecipe("prepare", {Recipe: prepare_command}))
main.add_command(ByRecipe("pairs", {Recipe: pairs}))
main.add_command(ByRecipe("run", {Recipe: run_projections, PairRecipe: run_pairs}))
main.add_command(ByRecipe("export", {Recipe: export_projections, PairRecipe: export_pairs}))
main.add_command(augment_sheet)
main.add_command(data)
main.add_command(evaluate)
