"""Gather what a recipe is trained on: compute and cache features, and sort them by use."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clipita.system.arrays import Array
from clipita_train.concepts.features import (
    ArrayRows,
    ConceptFeatures,
    Groups,
    MatchedFeatures,
    PhotographFeatures,
    PhraseFeatures,
)
from clipita_train.concepts.recipe import Corpus
from clipita_train.concepts.tail import ImageTail, first_block, image_tail
from clipita_train.data.captions.subjects import person_or_dog
from clipita_train.data.concepts import load_ontology, phrasings, training_texts
from clipita_train.data.photographs.example import Example
from clipita_train.towers.pretrained import row_scale, rows_as_features

ROW_SOURCE = "imagenet_samples"  # has one photograph of each class of the image classifier
VALIDATION_EVERY = 50  # one in so many training photographs is kept for validation


@dataclass(frozen=True)
class HeldOutSource:
    """A source that a run is not trained on, so that the model can be judged on what it has never seen.

    Attributes:
        source: The source whose photographs are left out.
        classes: Also leave out photographs of other sources, and classifier rows, that show the same concepts or
            narrower kinds of them.
    """

    source: str
    classes: bool = False


@dataclass(frozen=True)
class Material:
    """Everything that one part of a recipe is trained on.

    Attributes:
        features: What training batches are drawn from.
        validation: One photograph in fifty, to choose the best step and the logit scale by.
        tail: The end of the image tower with its pretrained weights; None where it does not learn.
    """

    features: ConceptFeatures
    validation: PhotographFeatures
    tail: ImageTail | None = None


def assemble(
    corpus: Corpus, boosts: Mapping[str, float], *, tail_blocks: int = 0, left_out: HeldOutSource | None = None
) -> Material:
    """Compute the features that are not cached yet, and sort all of them by use.

    Args:
        corpus: What to train on.
        boosts: Name of a source to how many times as often its photographs are drawn.
        tail_blocks: How many of the image tower's last blocks learn: maps of the block before them are cached too.
        left_out: A source to leave out.
    """
    ontology = load_ontology()
    examples = [example for example in corpus.examples if example.split == "train"]
    barred, usable = _left_out(corpus, examples, left_out)
    tail, maps = None, None
    if tail_blocks:  # maps of all examples, also of those left out: files of the cache hold fixed chunks of them
        first = first_block(corpus.towers.config, tail_blocks)
        tail = image_tail(corpus.towers.config, corpus.towers.image, first)
        maps, _ = corpus.image_maps(examples, first)
        corpus = corpus.with_end(corpus.towers.image)
    features, readable = corpus.image_features(examples)

    def maps_at(places: Array) -> ArrayRows | None:
        return None if maps is None else ArrayRows(maps, places)

    usable &= readable
    names = [example.concept or person_or_dog(example.captions) for example in examples]
    concept = np.array([-1 if name is None else ontology.index[name] for name in names])
    held_back = np.arange(len(examples)) % VALIDATION_EVERY == 0
    captioned = usable & np.array([bool(example.captions) for example in examples])
    labeled = usable & (concept >= 0) & ~np.isin(concept, barred)
    drawn = np.array([boosts.get(example.source, 1.0) for example in examples])
    learned = labeled & ~held_back
    photographs = PhotographFeatures(
        features[learned], concept[learned], drawn[learned], maps_at(np.flatnonzero(learned))
    )
    rows, spread = _rows(corpus, examples, features, photographs, barred)
    judged = labeled & held_back
    captioned_at = np.flatnonzero(captioned & ~held_back)
    captions = _captions(corpus, examples, features, captioned_at, maps_at(captioned_at))
    return Material(
        ConceptFeatures(photographs, rows, spread, _phrases(corpus), _words(corpus), captions),
        PhotographFeatures(features[judged], concept[judged], None, maps_at(np.flatnonzero(judged))),
        tail,
    )


def _left_out(corpus: Corpus, examples: list[Example], left_out: HeldOutSource | None) -> tuple[Array, Array]:
    """Return the indices of concepts to leave out, and which examples may be trained on, (N,) bool."""
    if left_out is None:
        return np.array([], np.int64), np.ones(len(examples), bool)
    mine = [example for example in corpus.examples if example.source == left_out.source]
    if not mine:
        raise ValueError(f"the manifest has no photographs of {left_out.source!r}")
    usable = np.array([example.source != left_out.source for example in examples])
    if not left_out.classes:
        return np.array([], np.int64), usable
    named = {c for example in mine for c in (example.concept, example.judged_as) if c}
    classes = [load_ontology().index[c] for c in named]
    return np.flatnonzero(load_ontology().ancestors[:, classes].any(1)), usable


def _phrases(corpus: Corpus) -> PhraseFeatures:
    """Compute features of every training text of every concept, WordNet's words and definition among them."""
    meanings = {synset.id: synset for synset in corpus.synsets}
    names: list[str] = []
    concepts: list[int] = []
    for k, concept in enumerate(load_ontology().concepts):
        texts = [*training_texts(concept), *phrasings(concept.label) * (corpus.recipe.label_repeats - 1)]
        if synset := meanings.get(concept.id):
            texts += [*synset.italian, *synset.english, synset.definition] * corpus.recipe.synset_repeats
        names += texts
        concepts += [k] * len(texts)
    return PhraseFeatures(corpus.text_features(names), np.array(concepts))


def moments(features: Array) -> tuple[Array, float]:
    """Return the mean (D,) and one standard deviation for all of features (N, D), from at most 30,000 rows."""
    rows = np.random.default_rng(0).permutation(len(features))[:30_000]
    sample = features[rows].astype(np.float32)
    mean = sample.mean(0)
    return mean, float((sample - mean).std())


def _rows(
    corpus: Corpus, examples: list[Example], features: Array, photographs: PhotographFeatures, barred: Array
) -> tuple[PhotographFeatures, Array]:
    """Return the classifier rows as photographs of their classes, and the spread (D,) of features in a concept."""
    places = [i for i, example in enumerate(examples) if example.source == ROW_SOURCE]
    shown = [str(examples[i].concept) for i in places]
    classes = sorted(set(shown))  # the classifier has its classes in the order of their WordNet ids
    rows = corpus.towers.classifier_rows
    if len(classes) != len(rows):
        raise ValueError(
            f"{ROW_SOURCE} has {len(classes)} of the classifier's {len(rows)} classes: "
            "get the whole collection, and prepare again"
        )
    real = features[places].astype(np.float32)
    scale = row_scale(rows, real, np.array([classes.index(name) for name in shown]))
    imagined = rows_as_features(rows, real.mean(0), scale).astype(np.float16)
    concepts = np.array([load_ontology().index[name] for name in classes])
    allowed = ~np.isin(concepts, barred)
    common = np.flatnonzero(np.bincount(photographs.concepts) > 20)[:200]
    if not len(common):
        raise ValueError(
            "no concept has more than 20 photographs to learn from: prepare more sources, or leave out fewer"
        )
    spreads = [photographs.features[photographs.concepts == c].astype(np.float32).std(0) for c in common]
    return PhotographFeatures(imagined[allowed], concepts[allowed]), np.stack(spreads).mean(0, dtype=np.float32)


def _words(corpus: Corpus) -> MatchedFeatures:
    """Match Italian words with Italian and English words of the same meaning."""
    words = sorted({word for synset in corpus.synsets for word in synset.italian + synset.english})
    place = {word: i for i, word in enumerate(words)}
    features = corpus.text_features(words)
    italian = Groups([[place[word] for word in synset.italian] for synset in corpus.synsets])
    both = Groups([[place[word] for word in synset.italian + synset.english] for synset in corpus.synsets])
    return MatchedFeatures(features, features, italian, both)


def _captions(
    corpus: Corpus, examples: list[Example], features: Array, places: Array, maps: ArrayRows | None
) -> MatchedFeatures | None:
    if not len(places):
        return None
    listed = [examples[i].captions[: corpus.recipe.captions_per_photograph] for i in places.tolist()]
    texts = [caption for captions in listed for caption in captions]
    owner = np.repeat(np.arange(len(listed)), [len(captions) for captions in listed])
    one_each = Groups.by_value(np.arange(len(places)), len(places))
    owners = Groups.by_value(owner, len(listed))
    return MatchedFeatures(features[places], corpus.text_features(texts), one_each, owners, maps)
