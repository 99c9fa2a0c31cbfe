"""Count the training photographs of each thing that people ask for: python -m benchmarks.quality.coverage --work WORK.

A word is a label of a concept, by how often Italians use it (wordfreq's Zipf scale: 3 is once in a million words, 6
once in a thousand). A photograph shows a concept if it is filed under it or under a narrower kind. Captions are counted
apart: they are in several languages, and say more than one thing. The table lists the poorest of the common words, so
it says what to look for next.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from clipita_train.data.concepts import Ontology, load_ontology, without_article
from clipita_train.data.photographs.example import Example
from clipita_train.data.photographs.manifest import read_manifest
from wordfreq import zipf_frequency

COMMON = 3.6  # Zipf: some 1,000 of the labels
STEPS = (0, 1, 10, 30, 100, 300)


class Covered(NamedTuple):
    """A label, how common it is, and how many training photographs show it."""

    label: str
    zipf: float
    photographs: int


def coverage(examples: Sequence[Example], ontology: Ontology) -> list[Covered]:
    """Count the training photographs of every concept, those of narrower kinds among them.

    Args:
        examples: The examples of a manifest.
        ontology: The concepts.

    Returns:
        One entry a concept, the commonest word first.
    """
    own = np.zeros(len(ontology), int)
    for example in examples:
        if example.split == "train" and example.concept is not None:
            own[ontology.index[example.concept]] += 1
    counts = own @ ontology.ancestors
    found = [
        Covered(concept.label, zipf_frequency(without_article(concept.label), "it"), int(count))
        for concept, count in zip(ontology.concepts, counts, strict=True)
    ]
    return sorted(found, key=lambda each: (-each.zipf, each.label))


def markdown(found: Sequence[Covered], examples: Sequence[Example], poorest: int) -> str:
    """Return how many common words have so many photographs, and the poorest."""
    common = [each for each in found if each.zipf >= COMMON]
    training = [example for example in examples if example.split == "train"]
    lines = [
        f"{len(training):,} photographs to train on, "
        f"{sum(bool(example.captions) for example in training):,} of them with captions; "
        f"{len(found):,} kinds, {len(common):,} of them by a common word.",
        "",
        "| photographs | common words |",
        "|---|---|",
    ]
    for low, high in zip(STEPS, (*STEPS[1:], None), strict=True):
        count = sum(low <= each.photographs and (high is None or each.photographs < high) for each in common)
        span = "none" if high == 1 else f"{low} and more" if high is None else f"{low} to {high - 1}"
        lines.append(f"| {span} | {count} |")
    lines += [
        "",
        "The commonest words of the fewest photographs:",
        "",
        "| label | Zipf | photographs |",
        "|---|---|---|",
    ]
    order = sorted(common, key=lambda each: (sum(each.photographs >= step for step in STEPS), -each.zipf))
    lines += [f"| {each.label} | {each.zipf:.1f} | {each.photographs} |" for each in order[:poorest]]
    return "\n".join(lines) + "\n"


def main() -> None:
    """Write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, required=True, help="the folder of manifest.jsonl")
    parser.add_argument("--poorest", type=int, default=60, help="how many of the poorest to list")
    parser.add_argument("--out", type=Path, help="where the table goes; otherwise it is printed")
    options = parser.parse_args()
    examples = read_manifest(options.work / "manifest.jsonl")
    table = markdown(coverage(examples, load_ontology()), examples, options.poorest)
    if options.out is None:
        print(table, end="")
    else:
        options.out.write_text(table, encoding="utf-8")


if __name__ == "__main__":
    main()
