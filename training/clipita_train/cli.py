"""The command `clipita-train`, from photographs on disk to a bundle, one subcommand for each step."""

from collections.abc import Sequence

import click

import clipita
from clipita_train import recipes
from clipita_train.augment.sheet import augment_sheet
from clipita_train.concepts.cli import KIND as CONCEPTS
from clipita_train.data.cli import data
from clipita_train.engine.mesh import join_processes
from clipita_train.evaluate.cli import evaluate
from clipita_train.pairs.cli import KIND as PAIRS
from clipita_train.recipe_kinds import Kind, commands_by_recipe
from clipita_train.towers.cli import quantize

KINDS = (CONCEPTS, PAIRS)


def command_line(kinds: Sequence[Kind]) -> click.Group:
    """Return the command `clipita-train` for recipes of these kinds."""

    @click.group(context_settings={"help_option_names": ["-h", "--help"]})
    @click.version_option(clipita.__version__)
    @click.option(
        "--coordinator", metavar="HOST:PORT", help="Address of the first of several processes that train together."
    )
    @click.option(
        "--processes", type=click.IntRange(1), default=1, show_default=True, help="How many processes train together."
    )
    @click.option(
        "--process", type=click.IntRange(0), default=0, show_default=True, help="Number of this process, from 0."
    )
    def main(coordinator: str | None, processes: int, process: int) -> None:
        """Train Italian image-text models."""
        if (coordinator is None) != (processes == 1) or process >= processes:
            raise click.UsageError(
                "several processes need --coordinator HOST:PORT, --processes N above 1, and --process below N"
            )
        if coordinator is not None:
            join_processes(coordinator, processes, process)

    for command in (*commands_by_recipe(kinds, recipes), augment_sheet, data, evaluate, quantize):
        main.add_command(command)
    return main


main = command_line(KINDS)
