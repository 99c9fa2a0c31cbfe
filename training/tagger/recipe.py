"""Trains the tagger in this package, and measures it.

    python -m training.tagger.recipe --treebanks DIR --out italian.npz

DIR holds clones of github.com/UniversalDependencies/UD_Italian-*, those that `TREEBANKS` names to learn from and those
that `JUDGES` names to be measured on; what is not there is an error.
"""

from pathlib import Path

import click
import numpy as np

from training.tagger import student
from training.tagger.lexicon import make_lexicon
from training.tagger.treebank import TAGS, Sentence, read_conllu, read_tagged, score

# Attribution and share-alike, or attribution: their weights may ship. Of each all files are read.
TREEBANKS = {"PUD": "CC BY-SA 3.0", "ParlaMint": "CC BY-SA 4.0", "TWITTIRO": "CC BY-SA 4.0", "MarkIT": "CC BY 4.0"}
# For non-commercial use: never learnt from.
JUDGES = {"ISDT": "it_isdt-ud-test", "VIT": "it_vit-ud-test", "ParTUT": "it_partut-ud-test"}

OWN = Path(__file__).with_name("sentences.txt"), 4  # so many times
EPOCHS = 9
SMOOTHING = 0.05  # of each target, spread over all tags


def read_treebank(folder: Path, name: str) -> list[Sentence]:
    """All sentences of UD_Italian-NAME. Raises FileNotFoundError: it has no .conllu files."""
    files = sorted((folder / f"UD_Italian-{name}").glob("*.conllu"))
    if not files:
        raise FileNotFoundError(
            f"no .conllu in {folder / f'UD_Italian-{name}'}:"
            f" git clone https://github.com/UniversalDependencies/UD_Italian-{name}"
        )
    return [sentence for file in files for sentence in read_conllu(file)]


@click.command()
@click.option("--treebanks", type=click.Path(path_type=Path, file_okay=False, exists=True), required=True)
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True)
@click.option("--epochs", type=click.IntRange(1), default=EPOCHS, show_default=True)
@click.option("--seed", default=0, show_default=True)
def main(treebanks: Path, out: Path, epochs: int, seed: int) -> None:
    """Learn parts of speech from treebanks, and print the scores on others."""
    try:
        sentences = [sentence for name in TREEBANKS for sentence in read_treebank(treebanks, name)]
        sentences += read_tagged(OWN[0]) * OWN[1]
        judges = {
            name: read_conllu(treebanks / f"UD_Italian-{name}" / f"{file}.conllu") for name, file in JUDGES.items()
        }
    except (FileNotFoundError, ValueError) as error:
        raise click.ClickException(str(error)) from None
    rows = np.eye(len(TAGS), dtype=np.float32) * (1 - SMOOTHING) + SMOOTHING / len(TAGS)
    targets = [rows[[TAGS.index(tag) for tag in sentence.tags]] for sentence in sentences]
    student.save(student.train(sentences, targets, make_lexicon(sentences), epochs=epochs, seed=seed), out)
    stored = student.load(out)
    click.echo(f"wrote {out}: {out.stat().st_size / 1e6:.2f} MB")
    for name, judge in judges.items():
        click.echo(f"{name}: {score(lambda some: student.tags(stored, some), judge)}")


if __name__ == "__main__":
    main()
