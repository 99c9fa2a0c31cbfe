"""Commands for recipes that train whole towers on photographs with captions, such as `clip_italian`."""

from pathlib import Path

import click
import jax

from clipita_train.engine.config import replace_from_strings
from clipita_train.pairs.export import export
from clipita_train.pairs.recipe import PairRecipe
from clipita_train.pairs.run import train
from clipita_train.recipe_kinds import ERRORS, Folder, Kind, with_bundle, with_set


@click.command()
@click.option("--out", type=Folder, required=True, help="Metrics and checkpoints go here.")
@with_set
@click.option("--resume", is_flag=True, help="Go on with the run in OUT, if there is one.")
@click.option("--tensorboard", is_flag=True, help="Also write files for TensorBoard.")
def run_pairs(recipe: PairRecipe, out: Path, assignments: tuple[str, ...], resume: bool, tensorboard: bool) -> None:
    """Train the towers of a recipe."""
    try:
        recipe = replace_from_strings(recipe, assignments)
        train(recipe, out, resume=resume, tensorboard=tensorboard)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    if jax.process_index() == 0:
        click.echo(f"trained {recipe.name} in {out}; next: clipita-train export")


@click.command()
@click.option("--run", "run_folder", type=Folder, required=True, help="The folder of the run, which was its --out.")
@with_set
@with_bundle
@click.option("--transformers", type=Folder, help="Also write a VisionTextDualEncoder of transformers to this folder.")
def export_pairs(
    recipe: PairRecipe,
    run_folder: Path,
    assignments: tuple[str, ...],
    out: Path,
    revision: str,
    transformers: Path | None,
) -> None:
    """Write a bundle of the trained weights, and check it. Give the same --set options as to run."""
    try:
        recipe = replace_from_strings(recipe, assignments)
        made = export(recipe, run_folder, out, revision=revision, transformers=transformers)
    except ERRORS as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"wrote {out}: {made.size / 1e6:.2f} MB, cosines to the trained towers of at least {made.agreement:.6f}")


KIND = Kind(PairRecipe, {"run": run_pairs, "export": export_pairs})
