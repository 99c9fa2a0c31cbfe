"""What a recipe is trained on: cached features, sorted into what batches draw from."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from clipita.convert.quantize import Array
from clipita_train.concepts.batches import Groups, Pairs, Photographs, Phrases, Rows
from clipita_train.concepts.recipe import Corpus
from clipita_train.concepts.tail import ImageTail, first_block, image_tail, tail_features
from clipita_train.data.captions.subjects import person_or_dog
from clipita_train.data.concepts import load_ontology, phrasings, training_texts
from clipita_train.data.photographs.example import Example
from clipita_train.towers.pretrained import row_scale, rows_as_features

ROW_SOURCE = "imagenet_samples"  # has one photograph of each class of the classifier
VALIDATION_SHARE = 50  # one in so many training photographs picks the best step and is not trained on


@dataclass(frozen=True)
class LeftOut:
    """What a run does without, to measure how well it is told apart unseen.

    Attributes:
        source: whose photographs are not trained on.
        classes: nor any other photograph, or row of the classifier, of what they show and of narrower kinds of it.
    """

    source: str
    classes: bool = False


@dataclass(frozen=True)
class Material:
    """Cached features, sorted into what the batches draw from."""

    photographs: Photographs
    held_back: Photographs  # one in fifty: picks the best step and the scale
    phrases: Phrases
    rows: Photographs
    spread: Array
    words: Pairs
    captions: Pairs | None
    tail: ImageTail | None = None  # with the weights that it has in the tower


def assemble(
    corpus: Corpus, boosts: Mapping[str, float], *, tail_blocks: int = 0, left_out: LeftOut | None = None
) -> Material:
    """Computes what is not cached yet, and sorts it.

    Args:
        corpus: what to train on.
        boosts: source -> how many times as often its photographs are drawn.
        tail_blocks: so many of the image tower's last blocks are to learn, and need maps of those before them.
        left_out: what to do without.
    """
    ontology = load_ontology()
    examples = [example for example in corpus.examples if example.split == "train"]
    barred, usable = _left_out(corpus, examples, left_out)
    tail, maps = None, None
    if tail_blocks:  # of all examples, since what is cached is cached in chunks
        first = first_block(corpus.towers.config, tail_blocks)
        tail = image_tail(corpus.towers.config, corpus.towers.image, first)
        maps, readable = corpus.image_features(examples, blocks=first)
        features = tail_features(tail, maps, np.arange(len(maps)))
    else:
        features, readable = corpus.image_features(examples)

    def rows_of(places: Array) -> Rows | None:
        return None if maps is None else Rows(maps, places)

    usable &= readable
    names = [example.concept or person_or_dog(example.captions) for example in examples]
    concept = np.array([-1 if name is None else ontology.index[name] for name in names])
    held_back = np.arange(len(examples)) % VALIDATION_SHARE == 0
    captioned = usable & np.array([bool(example.captions) for example in examples])
    labelled = usable & (concept >= 0) & ~np.isin(concept, barred)
    drawn = np.array([boosts.get(example.source, 1.0) for example in examples])
    learnt = labelled & ~held_back
    photographs = Photographs(features[learnt], concept[learnt], drawn[learnt], rows_of(np.flatnonzero(learnt)))
    rows, spread = _rows(corpus, examples, features, photographs, barred)
    judged = labelled & held_back
    captioned_at = np.flatnonzero(captioned & ~held_back)
    return Material(
        photographs,
        Photographs(features[judged], concept[judged], None, rows_of(np.flatnonzero(judged))),
        _phrases(corpus),
        rows,
        spread,
        _words(corpus),
        _captions(corpus, examples, features, captioned_at, rows_of(captioned_at)),
        tail,
    )


def _left_out(corpus: Corpus, examples: list[Example], left_out: LeftOut | None) -> tuple[Array, Array]:
    """Indices of concepts that nothing may show, and which examples may be trained on (N,) bool."""
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


def _phrases(corpus: Corpus) -> Phrases:
    """Every training text of every concept; of those that are a WordNet meaning also its words and definition."""
    meanings = {synset.id: synset for synset in corpus.synsets}
    names: list[str] = []
    concepts: list[int] = []
    for k, concept in enumerate(load_ontology().concepts):
        texts = [*training_texts(concept), *phrasings(concept.label) * (corpus.recipe.label_repeats - 1)]
        if synset := meanings.get(concept.id):
            texts += [*synset.italian, *synset.english, synset.definition] * corpus.recipe.synset_repeats
        names += texts
        concepts += [k] * len(texts)
    return Phrases(corpus.text_features(names), np.array(concepts))


def moments(features: Array) -> tuple[Array, float]:
    """Mean (D,) and the one standard deviation of features (N, D), from at most 30,000 of them."""
    rows = np.random.default_rng(0).permutation(len(features))[:30_000]
    sample = features[rows].astype(np.float32)
    mean = sample.mean(0)
    return mean, float((sample - mean).std())


def _rows(
    corpus: Corpus, examples: list[Example], features: Array, photographs: Photographs, barred: Array
) -> tuple[Photographs, Array]:
    """The classifier's rows as photographs of its classes, and the spread (D,) of a feature within a concept."""
    places = [i for i, example in enumerate(examples) if example.source == ROW_SOURCE]
    shown = [str(examples[i].concept) for i in places]
    classes = sorted(set(shown))  # the classifier's order is that of the WordNet ids
    rows = corpus.towers.classifier_rows
    if len(classes) != len(rows):
        raise ValueError(f"{ROW_SOURCE} has {len(classes)} of the classifier's {len(rows)} classes; prepare it whole")
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
    return Photographs(imagined[allowed], concepts[allowed]), np.stack(spreads).mean(0, dtype=np.float32)


def _words(corpus: Corpus) -> Pairs:
    """Italian words against Italian and English words of the same meaning."""
    words = sorted({word for synset in corpus.synsets for word in synset.italian + synset.english})
    place = {word: i for i, word in enumerate(words)}
    features = corpus.text_features(words)
    italian = Groups([[place[word] for word in synset.italian] for synset in corpus.synsets])
    both = Groups([[place[word] for word in synset.italian + synset.english] for synset in corpus.synsets])
    return Pairs(features, features, italian, both)


def _captions(
    corpus: Corpus, examples: list[Example], features: Array, places: Array, maps: Rows | None
) -> Pairs | None:
    if not len(places):
        return None
    listed = [examples[i].captions[: corpus.recipe.captions_per_photograph] for i in places.tolist()]
    texts = [caption for captions in listed for caption in captions]
    owner = np.repeat(np.arange(len(listed)), [len(captions) for captions in listed])
    one_each = Groups.by_value(np.arange(len(places)), len(places))
    owners = Groups.by_value(owner, len(listed))
    return Pairs(features[places], corpus.text_features(texts), one_each, owners, maps)
