"""Commands for recipes that train projections on photographs of known concepts, such as `mini`."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import jax
import numpy as np

from clipita.convert.export import Provenance
from clipita_train.concepts.export import export
from clipita_train.concepts.material import HeldOutSource
from clipita_train.concepts.recipe import Corpus, Recipe, load_towers, prepare
from clipita_train.concepts.run import Trained, run_folder, train
from clipita_train.data.photographs.labeled_pairs import labeled_pairs
from clipita_train.data.photographs.manifest import counts, read_manifest
from clipita_train.engine.config import replace_from_strings
from clipita_train.engine.files import written_whole
from clipita_train.recipe_kinds import ERRORS, Folder, Kind, with_bundle, with_set
from clipita_train.towers.pretrained import image_tower_of

MANIFEST = "manifest.jsonl"
File = click.Path(path_type=Path, dir_okay=False, exists=True)


def _with_corpus(command: Callable[..., None]) -> Callable[..., None]:
    """Add the options that say where photographs, WordNets and cached features are."""
    for option in reversed(
        [
            click.option("--root", type=Folder, required=True, help="Holds the clones, as OWNER/NAME."),
            click.option("--work", type=Folder, required=True, help="Manifest, cached features and runs go here."),
            click.option("--nouns", type=File, required=True, help="The file data.noun of WordNet 3.0."),
            click.option("--omw", type=Folder, required=True, help="The folder wns of omw-data."),
        ]
    ):
        command = option(command)
    return command


def _left_out(_: click.Context, __: click.Parameter, text: str | None) -> HeldOutSource | None:
    if text is None:
        return None
    source, _colon, more = text.partition(":")
    if more not in ("", "classes"):
        raise click.BadParameter(f"expected SOURCE or SOURCE:classes, not {text!r}")
    return HeldOutSource(source, classes=bool(more))


_with_left_out = click.option(
    "--leave-out",
    "left_out",
    metavar="SOURCE[:classes]",
    callback=_left_out,
    help="A source to leave out; with :classes, all photographs of what it shows are left out.",
)


@click.command()
@click.option("--root", type=Folder, default=Path("photographs"), help="Where you keep the clones.")
def sources(recipe: Recipe, root: Path) -> None:
    """Print how to get the photographs of a recipe, and their licenses."""
    for source in recipe.sources:
        click.echo(f"# {source.name}: {source.licence}\n{source.clone_command(root)}")


@click.command()
@click.option("--root", type=Folder, required=True, help="Holds the clones, as OWNER/NAME.")
@click.option("--work", type=Folder, required=True, help="The manifest goes here.")
@click.option("--without", multiple=True, help="Leave a source out; may be repeated.")
def prepare_command(recipe: Recipe, root: Path, work: Path, without: tuple[str, ...]) -> None:
    """List the photographs to train on, without repeats and without those of the development sets."""
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
@click.option("--each", type=click.IntRange(1), help="Maximum number of photographs of a concept.")
def pairs(_: Recipe, work: Path, out: Path, each: int | None) -> None:
    """List the prepared photographs with Italian captions, for recipes that learn from pairs."""
    try:
        lines = [
            json.dumps(pair, ensure_ascii=False) for pair in labeled_pairs(read_manifest(work / MANIFEST), each=each)
        ]
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    with written_whole(out) as partial:
        partial.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
    click.echo(f"wrote {out}: {len(lines):,} photographs")


@click.command()
@_with_corpus
@with_set
@_with_left_out
@click.option(
    "--tower", type=Folder, help="A bundle whose image tower to use, so that only the projections are trained."
)
@click.option("--tail-from", type=Folder, help="A bundle whose image tower's end to train on, instead of ImageNet's.")
@click.option("--resume", is_flag=True, help="Go on with the run in WORK.")
def run_projections(
    recipe: Recipe,
    root: Path,
    work: Path,
    nouns: Path,
    omw: Path,
    assignments: tuple[str, ...],
    left_out: HeldOutSource | None,
    tower: Path | None,
    tail_from: Path | None,
    resume: bool,
) -> None:
    """Train. Features that are already in WORK are not computed again."""
    try:
        recipe = replace_from_strings(recipe, assignments)
        corpus = Corpus(recipe, load_towers(recipe), root, nouns, omw, work)
        taken, begun = (
            None if bundle is None else image_tower_of(bundle, corpus.towers.config.image)
            for bundle in (tower, tail_from)
        )
        trained = train(corpus, tower=taken, tail_from=begun, left_out=left_out, resume=resume)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    if jax.process_index():
        return  # all processes hold the same weights, and the first writes them
    out = run_folder(work, left_out) / "projections.npz"
    arrays: dict[str, Any] = {"logit_scale": trained.logit_scale, **trained.weights}
    np.savez(out, **arrays)
    click.echo(f"wrote {out}, logit scale {trained.logit_scale:g}")


@click.command()
@_with_corpus
@_with_left_out
@with_bundle
def export_projections(
    recipe: Recipe,
    root: Path,
    work: Path,
    nouns: Path,
    omw: Path,
    left_out: HeldOutSource | None,
    out: Path,
    revision: str,
) -> None:
    """Write a bundle of the trained weights, and check it."""
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
    if recipe.integer_images:
        click.echo(f"in integers, photographs have a mean cosine of {made.cosine:.4f} to float32")


KIND = Kind(
    Recipe,
    {
        "sources": sources,
        "prepare": prepare_command,
        "pairs": pairs,
        "run": run_projections,
        "export": export_projections,
    },
)
