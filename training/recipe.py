"""A recipe is data: what to learn from, which towers, which stages. Here is what is done with one.

    prepare: sources -> manifest.jsonl
    train:   manifest -> cached features of the locked towers -> projections

`training.export` then makes a bundle of the towers and the projections.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from flax import nnx

from clipita.convert.efficientnet_lite import fold_batch_norm
from clipita.convert.quantize import Array, WeightFormat
from clipita.images import Preprocessing
from clipita.tokenizer import Tokenizer, TokenizerConfig
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita.towers.parameters import parameter_table
from training.config import StageConfig, TrainConfig
from training.data.batches import ConceptBatches, Groups, Mix, Pairs, Photographs, Phrases, validation_batches
from training.data.concepts import load_ontology, training_texts
from training.data.manifest import read_manifest, write_manifest
from training.data.sources import Example, Source
from training.data.wordnet import Synset, read_synsets
from training.features import image_features, locked_image_tower, locked_text_tower, text_features
from training.loop import fit
from training.pretrained import e5_small, e5_tokenizer, efficientnet_lite, row_scale, rows_as_features
from training.projections import Projections, Standardise, projection_loss

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
    train: TrainConfig
    text_noise: float
    image_dropout: float
    word_weight: float
    caption_weight: float
    captions_per_photograph: int
    frequent_words: int  # of Italian, whose pieces the embedded vocabulary keeps
    weight_formats: dict[str, WeightFormat]
    templates: tuple[str, ...]


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
    mean, std = (127.0, 127.0, 127.0), (128.0, 128.0, 128.0)
    config = DualConfig(
        image=image_config,
        text=text_config,
        preprocessing=Preprocessing(recipe.image_size, "shortest", "bicubic", mean, std),
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

    def image_features(self, examples: Sequence[Example]) -> tuple[Array, Array]:
        """(N, D) float16 and which could be read (N,) bool, in shards that are made once."""
        tower = locked_image_tower(self.towers.config, self.towers.image)
        paths = [self.root / example.path for example in examples]
        return image_features(tower, paths, self.towers.config, self.work / "features")

    def text_features(self, texts: Sequence[str]) -> Array:
        """(N, D) float16, in shards that are made once."""
        tower = locked_text_tower(self.towers.config, self.towers.text, self.towers.tokenizer)
        width = self.towers.config.text.features
        return text_features(tower, texts, self.towers.tokenizer, self.work / "features", width=width)


def prepare(recipe: Recipe, root: Path, work: Path, *, without: Sequence[str] = ()) -> str:
    """Writes work/manifest.jsonl; returns a line on what was left out."""
    unknown = set(without) - {source.name for source in recipe.sources}
    if unknown:
        raise ValueError(f"--without names no source of the recipe: {', '.join(sorted(unknown))}")
    sources = [source for source in recipe.sources if source.name not in without]
    return str(write_manifest(sources, root, work / "manifest.jsonl"))


def train(corpus: Corpus, *, resume: bool = False, train_config: TrainConfig | None = None) -> dict[str, Array]:
    """Runs the recipe's stages; returns both projections' weights, for raw features and named as in a bundle."""
    recipe, config = corpus.recipe, train_config or corpus.recipe.train
    batches, validation, image_scale, text_scale = _batches(corpus, config.seed)
    projections = Projections(corpus.towers.config, image_scale, text_scale, rngs=nnx.Rngs(config.seed))
    loss_fn = projection_loss(
        logit_scale=config.logit_scale,
        text_noise=recipe.text_noise,
        image_dropout=recipe.image_dropout,
        word_weight=recipe.word_weight,
        caption_weight=recipe.caption_weight,
    )

    def make_batches(_: StageConfig, split: str):
        return batches() if split == "train" else validation()

    best = fit(projections, config, loss_fn, make_batches, out_dir=corpus.work / "run", resume=resume)
    return {
        f"{side}_projection.{name}": values
        for side in ("image", "text")
        for name, values in getattr(best, f"{side}_standardise")
        .fold(parameter_table(getattr(best, f"{side}_projection")))
        .items()
    }


def _batches(corpus: Corpus, seed: int):
    """Training batches, validation batches, and the standardisation of both kinds of features."""
    ontology, mix = load_ontology(), corpus.recipe.mix
    examples = [example for example in corpus.examples if example.split == "train"]
    features, readable = corpus.image_features(examples)
    concept = np.array([-1 if e.concept is None else ontology.index[e.concept] for e in examples])
    is_validation = np.arange(len(examples)) % VALIDATION_SHARE == 0

    names, text_concepts = [], []
    for k, item in enumerate(ontology.concepts):
        texts = training_texts(item)
        names += texts
        text_concepts += [k] * len(texts)
    phrases = Phrases(corpus.text_features(names), np.array(text_concepts))

    labelled = readable & (concept >= 0)
    photographs = Photographs(features[labelled & ~is_validation], concept[labelled & ~is_validation])
    held_back = Photographs(features[labelled & is_validation], concept[labelled & is_validation])
    scale = Standardise(*_moments(photographs.features)), Standardise(*_moments(phrases.features))
    rows, spread = _rows(corpus, examples, features, photographs)
    words = _words(corpus)
    captions = _captions(corpus, examples, features, np.flatnonzero(readable & (concept < 0) & ~is_validation))

    def training() -> ConceptBatches:
        return ConceptBatches(ontology, photographs, rows, spread, phrases, words, captions, mix, seed)

    def validation():
        return validation_batches(ontology, held_back, phrases, mix)

    return training, validation, *scale


def _moments(features: Array) -> tuple[Array, float]:
    """Mean (D,) and the one standard deviation of features (N, D), from at most 30,000 of them."""
    rows = np.random.default_rng(0).permutation(len(features))[:30_000]
    sample = features[rows].astype(np.float32)
    mean = sample.mean(0)
    return mean, float((sample - mean).std())


def _rows(
    corpus: Corpus, examples: list[Example], features: Array, photographs: Photographs
) -> tuple[Photographs, Array]:
    """The classifier's rows as photographs of its classes, and the spread (D,) of a feature within a concept."""
    index = load_ontology().index
    places = [i for i, example in enumerate(examples) if example.source == ROW_SOURCE]
    classes = sorted(example.concept for i in places if (example := examples[i]).concept)
    real = features[places].astype(np.float32)
    row_of = np.array([classes.index(str(examples[i].concept)) for i in places])
    rows = corpus.towers.classifier_rows
    if len(classes) != len(rows):
        raise ValueError(f"{ROW_SOURCE} has {len(classes)} of the classifier's {len(rows)} classes; prepare it whole")
    imagined = rows_as_features(rows, real.mean(0), row_scale(rows, real, row_of))
    concepts, counts = np.unique(photographs.concepts, return_counts=True)
    spreads = [
        photographs.features[photographs.concepts == c].astype(np.float32).std(0) for c in concepts[counts > 20][:200]
    ]
    return (
        Photographs(imagined.astype(np.float16), np.array([index[c] for c in classes])),
        np.mean(spreads, axis=0, dtype=np.float32),
    )


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
