"""A recipe is data: what to learn from, which towers, which stages. Here is what is done with one.

    prepare: sources -> manifest.jsonl
    train:   manifest -> cached features of the locked towers -> projections

`training.export` then makes a bundle of the towers and the projections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from flax import nnx

from clipita.convert.efficientnet_lite import PIXEL_MEAN, PIXEL_STD, fold_batch_norm
from clipita.convert.quantize import Array, WeightFormat
from clipita.images import Preprocessing
from clipita.tokenizer import Tokenizer, TokenizerConfig
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita.towers.parameters import parameter_table
from training.config import StageConfig, TrainConfig
from training.data.batches import ConceptBatches, Groups, Mix, Pairs, Photographs, Phrases, validation_batches
from training.data.captions import person_or_dog
from training.data.concepts import load_ontology, training_texts
from training.data.manifest import read_manifest, write_manifest
from training.data.sources import Example, Source
from training.data.wordnet import Synset, read_synsets
from training.features import LockedTower, image_features, locked_image_tower, locked_text_tower, text_features
from training.loop import fit
from training.pretrained import e5_small, e5_tokenizer, efficientnet_lite, row_scale, rows_as_features
from training.projections import Projections, Standardise, decorrelate, project, projection_loss, unit_rows

ROW_SOURCE = "imagenet_samples"  # has one photograph of each class of the classifier
VALIDATION_SHARE = 50  # one in so many training photographs picks the best step and is not trained on


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, but for the photographs themselves."""

    name: str
    licence: str  # of the weights that come out
    sources: tuple[Source, ...]
    lite_variant: int  # EfficientNet-lite 0, 1 or 2
    image_size: int
    embed_dim: int
    image_projection: ProjectionConfig
    text_projection: ProjectionConfig
    tokenizer: TokenizerConfig
    mix: Mix
    boosts: dict[str, float]  # source -> how many times as often its photographs are drawn
    train: TrainConfig
    text_noise: float
    image_dropout: float
    word_weight: float
    caption_weight: float
    decorrelation: float  # power of `training.projections.decorrelate`
    synset_repeats: int  # how often the words of a WordNet meaning stand among a concept's texts
    captions_per_photograph: int
    frequent_words: int  # of Italian, whose pieces the embedded vocabulary keeps
    weight_formats: dict[str, WeightFormat]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (self.image_projection.bias and self.text_projection.bias):
            raise ValueError("both projections need a bias: what is done to features before them is folded into it")


@dataclass(frozen=True)
class Towers:
    """The locked towers of a recipe, as bundles store them, and what belongs to them."""

    config: DualConfig
    image: dict[str, Array]  # folded, float32, under "image."
    text: dict[str, Array]  # int4, under "text."
    classifier_rows: Array  # (1000, D)
    tokenizer: Tokenizer
    tokenizer_file: Path


def load_towers(recipe: Recipe) -> Towers:
    """The pretrained towers. Raises FileNotFoundError: a package is missing; says which to install."""
    image_config, imagenet = efficientnet_lite(recipe.lite_variant)
    text_config, text = e5_small()
    tokenizer_file = e5_tokenizer()
    config = DualConfig(
        image=image_config,
        text=text_config,
        preprocessing=Preprocessing(recipe.image_size, "shortest", "bicubic", PIXEL_MEAN, PIXEL_STD),
        embed_dim=recipe.embed_dim,
        image_projection=recipe.image_projection,
        text_projection=recipe.text_projection,
    )
    return Towers(
        config,
        {f"image.{name}": values for name, values in fold_batch_norm(imagenet.tower).items()},
        {f"text.{name}": values for name, values in text.items()},
        imagenet.classifier_kernel,
        Tokenizer.from_file(tokenizer_file, recipe.tokenizer),
        tokenizer_file,
    )


@dataclass(frozen=True)
class Corpus:
    """A recipe's material on this machine: photographs, WordNets, and where cached features go."""

    recipe: Recipe
    towers: Towers
    root: Path  # of the photographs
    nouns: Path  # WordNet's data.noun
    omw: Path  # wns/ of omw-data
    work: Path

    @cached_property
    def examples(self) -> list[Example]:
        """The manifest of `work`."""
        return read_manifest(self.work / "manifest.jsonl")

    @cached_property
    def synsets(self) -> list[Synset]:
        """Words of one meaning, without any phrasing that is held out."""
        held_out = [phrase for concept in load_ontology().concepts for phrase in concept.held_out]
        return read_synsets(self.nouns, self.omw, without=held_out)

    @cached_property
    def _text_tower(self) -> LockedTower:  # words, phrases and captions come one after the other
        return locked_text_tower(self.towers.config, self.towers.text, self.towers.tokenizer)

    def image_features(self, examples: Sequence[Example]) -> tuple[Array, Array]:
        """(N, D) float16 and which could be read (N,) bool, in shards that are made once."""
        tower = locked_image_tower(self.towers.config, self.towers.image)
        paths = [self.root / example.path for example in examples]
        return image_features(tower, paths, self.towers.config, self.work / "features")

    def text_features(self, texts: Sequence[str]) -> Array:
        """(N, D) float16, in shards that are made once."""
        width = self.towers.config.text.features
        return text_features(self._text_tower, texts, self.towers.tokenizer, self.work / "features", width=width)


def prepare(recipe: Recipe, root: Path, work: Path, *, without: Sequence[str] = ()) -> str:
    """Writes work/manifest.jsonl; returns a line on what was left out."""
    unknown = set(without) - {source.name for source in recipe.sources}
    if unknown:
        raise ValueError(f"--without names no source of the recipe: {', '.join(sorted(unknown))}")
    sources = [source for source in recipe.sources if source.name not in without]
    return str(write_manifest(sources, root, work / "manifest.jsonl"))


@dataclass(frozen=True)
class Trained:
    """What `train` makes: both projections for raw features, named as in a bundle, and the scale of their cosines."""

    projections: dict[str, Array]
    logit_scale: float


def train(corpus: Corpus, *, leave_out: str | None = None, resume: bool = False) -> Trained:
    """Runs the recipe's stages, then decorrelates the embeddings and fits the scale on photographs held back.

    Args:
        corpus: what to train on.
        leave_out: a source whose classes no photograph and no row of the classifier shall show, to measure how well
            they are told apart unseen.
        resume: go on with the run that is in the work folder.
    """
    recipe, config = corpus.recipe, corpus.recipe.train
    material = _material(corpus, leave_out)
    scales = [Standardise(*_moments(side.features)) for side in (material.photographs, material.phrases)]
    projections = Projections(corpus.towers.config, *scales, rngs=nnx.Rngs(config.seed))
    loss_fn = projection_loss(
        logit_scale=config.logit_scale,
        text_noise=recipe.text_noise,
        image_dropout=recipe.image_dropout,
        word_weight=recipe.word_weight,
        caption_weight=recipe.caption_weight,
    )

    def make_batches(_: StageConfig, split: str) -> Any:
        if split == "train":
            return ConceptBatches(
                load_ontology(),
                material.photographs,
                material.rows,
                material.spread,
                material.phrases,
                material.words,
                material.captions,
                recipe.mix,
                config.seed,
            )
        return validation_batches(load_ontology(), material.held_back, material.phrases, recipe.mix)

    best = fit(projections, config, loss_fn, make_batches, out_dir=run_folder(corpus.work, leave_out), resume=resume)
    image = best.image_standardise.fold(parameter_table(best.image_projection))
    text = best.text_standardise.fold(parameter_table(best.text_projection))
    sample = np.random.default_rng(config.seed).permutation(len(material.photographs.features))[:20_000]
    decorrelate(image, text, project(image, material.photographs.features[sample]), recipe.decorrelation)
    return Trained(
        {f"image_projection.{name}": values for name, values in image.items()}
        | {f"text_projection.{name}": values for name, values in text.items()},
        _fit_scale(material, image, text),
    )


def run_folder(work: Path, leave_out: str | None) -> Path:
    """Where a run keeps its checkpoints and metrics."""
    return work / ("run" if leave_out is None else f"run-without-{leave_out}")


def _fit_scale(material: "_Material", image: dict[str, Array], text: dict[str, Array], labels: int = 10) -> float:
    """The scale with the least negative log-likelihood on photographs held back, each among ten unrelated labels."""
    rng = np.random.default_rng(0)
    texts = Groups.by_value(material.phrases.concepts, len(load_ontology()))
    usable = np.flatnonzero(texts.counts > 0)
    embeddings = unit_rows(project(text, material.phrases.features[texts.first(usable)]))
    shown = material.held_back.concepts
    images = unit_rows(project(image, material.held_back.features))
    place = np.searchsorted(usable, shown)
    unrelated = ~(load_ontology().ancestors[np.ix_(shown, usable)] | load_ontology().ancestors[np.ix_(usable, shown)].T)
    others = np.array([rng.choice(np.flatnonzero(row), labels - 1, replace=False) for row in unrelated])
    chosen = np.concatenate([place[:, None], others], axis=1)  # (N, 10), the right one first
    cosines = np.einsum("ne,nke->nk", images, embeddings[chosen])

    def loss(scale: float) -> float:
        logits = scale * cosines
        return float(
            (np.log(np.exp(logits - logits.max(1, keepdims=True)).sum(1)) + logits.max(1) - logits[:, 0]).mean()
        )

    return min(np.arange(5.0, 61.0), key=loss)


@dataclass(frozen=True)
class _Material:
    """Cached features, sorted into what the batches draw from."""

    photographs: Photographs
    held_back: Photographs  # one in fifty: picks the best step and the scale
    phrases: Phrases
    rows: Photographs
    spread: Array
    words: Pairs
    captions: Pairs | None


def _material(corpus: Corpus, leave_out: str | None) -> _Material:
    ontology = load_ontology()
    barred = _classes_of(corpus, leave_out)
    examples = [example for example in corpus.examples if example.split == "train"]
    features, readable = corpus.image_features(examples)
    names = [example.concept or person_or_dog(example.captions) for example in examples]
    concept = np.array([-1 if name is None else ontology.index[name] for name in names])
    held_back = np.arange(len(examples)) % VALIDATION_SHARE == 0
    captioned = np.array([bool(example.captions) for example in examples])
    labelled = readable & (concept >= 0) & ~np.isin(concept, barred)
    boosts = np.array([corpus.recipe.boosts.get(e.source, 1.0) for e in examples])
    learnt = labelled & ~held_back
    photographs = Photographs(features[learnt], concept[learnt], boosts[learnt])
    rows, spread = _rows(corpus, examples, features, photographs, barred)
    return _Material(
        photographs,
        Photographs(features[labelled & held_back], concept[labelled & held_back]),
        _phrases(corpus),
        rows,
        spread,
        _words(corpus),
        _captions(corpus, examples, features, np.flatnonzero(readable & captioned & ~held_back)),
    )


def _classes_of(corpus: Corpus, source: str | None) -> Array:
    """Indices of what a source's photographs show or are judged as, and of narrower kinds of it; none for None."""
    if source is None:
        return np.array([], np.int64)
    mine = [example for example in corpus.examples if example.source == source]
    if not mine:
        raise ValueError(f"the manifest has no photographs of {source!r}")
    named = {c for example in mine for c in (example.concept, example.judged_as) if c}
    classes = [load_ontology().index[c] for c in named]
    return np.flatnonzero(load_ontology().ancestors[:, classes].any(1))


def _phrases(corpus: Corpus) -> Phrases:
    """Every training text of every concept; of those that are a WordNet meaning also its words and definition."""
    meanings = {synset.id: synset for synset in corpus.synsets}
    names: list[str] = []
    concepts: list[int] = []
    for k, concept in enumerate(load_ontology().concepts):
        texts = list(training_texts(concept))
        if synset := meanings.get(concept.id):
            texts += [*synset.italian, *synset.english, synset.definition] * corpus.recipe.synset_repeats
        names += texts
        concepts += [k] * len(texts)
    return Phrases(corpus.text_features(names), np.array(concepts))


def _moments(features: Array) -> tuple[Array, float]:
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
    return Photographs(imagined[allowed], concepts[allowed]), np.mean(spreads, axis=0, dtype=np.float32)


def _words(corpus: Corpus) -> Pairs:
    """Italian words against Italian and English words of the same meaning."""
    words = sorted({word for synset in corpus.synsets for word in synset.italian + synset.english})
    place = {word: i for i, word in enumerate(words)}
    features = corpus.text_features(words)
    italian = Groups([[place[word] for word in synset.italian] for synset in corpus.synsets])
    both = Groups([[place[word] for word in synset.italian + synset.english] for synset in corpus.synsets])
    return Pairs(features, features, italian, both)


def _captions(corpus: Corpus, examples: list[Example], features: Array, places: Array) -> Pairs | None:
    if not len(places):
        return None
    listed = [examples[i].captions[: corpus.recipe.captions_per_photograph] for i in places.tolist()]
    texts = [caption for captions in listed for caption in captions]
    owner = np.repeat(np.arange(len(listed)), [len(captions) for captions in listed])
    one_each = Groups.by_value(np.arange(len(places)), len(places))
    return Pairs(features[places], corpus.text_features(texts), one_each, Groups.by_value(owner, len(listed)))
