"""Make pairs of photographs and Italian texts from a manifest, for recipes that learn from captions."""

from collections import Counter
from collections.abc import Iterable, Iterator

from clipita_train.data.concepts import load_ontology, training_texts
from clipita_train.data.photographs.example import Example


def labeled_pairs(examples: Iterable[Example], *, each: int | None = None) -> Iterator[dict[str, object]]:
    """Yield {"image_path": ..., "captions": [...]} for training photographs with a known concept or with captions.

    Args:
        examples: The examples of a manifest.
        each: Maximum number of photographs of a concept, the first of the manifest; None means all.
    """
    ontology, seen = load_ontology(), Counter[str]()
    for example in examples:
        if example.split != "train":
            continue
        if example.concept is None:
            captions = example.captions
        else:
            seen[example.concept] += 1
            if each is not None and seen[example.concept] > each:
                continue
            captions = training_texts(ontology[example.concept])
        if captions:
            yield {"image_path": example.path, "captions": list(captions)}
