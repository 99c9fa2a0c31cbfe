"""A recipe is data: what to learn from, which towers, which stages. Here too is its material on this machine.

`run` makes projections of it, and `export` a bundle of the towers and the projections.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from clipita.convert.efficientnet_lite import PIXEL_MEAN, PIXEL_STD, fold_batch_norm
from clipita.convert.quantize import WeightFormat
from clipita.images.pixels import Preprocessing
from clipita.text.tokenizer import Tokenizer, TokenizerConfig
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita_train.arrays import Array
from clipita_train.concepts.batches import Mix
from clipita_train.concepts.tail import learns
from clipita_train.data.concepts import load_ontology
from clipita_train.data.photographs.collections import Collection
from clipita_train.data.photographs.example import Example
from clipita_train.data.photographs.manifest import read_manifest, write_manifest
from clipita_train.data.wordnet import Synset, read_synsets
from clipita_train.engine.config import TrainConfig
from clipita_train.towers.features import (
    LockedTower,
    image_features,
    locked_image_tower,
    locked_text_tower,
    text_features,
)
from clipita_train.towers.pretrained import e5_small, e5_tokenizer, efficientnet_lite


@dataclass(frozen=True)
class ProjectionsRecipe:
    """How an image projection and a text projection are trained."""

    boosts: dict[str, float]  # source -> how many times as often its photographs are drawn
    train: TrainConfig
    text_drift: float = (
        0.0  # of what two words of one meaning differ by; see `clipita_train.concepts.projections.projection_loss`
    )


@dataclass(frozen=True)
class TailRecipe:
    """How the end of the image tower is trained, together with projections that are thrown away.

    Its photographs may be smaller than those that the model is to read: maps of the blocks before it are kept of each.
    """

    blocks: int  # the last ones, which stages unlock as "image_tail", with the head
    image_size: int
    projections: ProjectionsRecipe

    def __post_init__(self) -> None:
        if not any(learns(stage) for stage in self.projections.train.stages):
            raise ValueError("no stage unlocks the tail of the image tower: say so by a rule, or have no tail")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides what comes out, but for the photographs themselves."""

    name: str
    licence: str  # of the weights that come out
    sources: tuple[Collection, ...]
    lite_variant: int  # EfficientNet-lite 0, 1 or 2
    tail: TailRecipe | None  # None: the image tower stays as it is
    image_size: int
    embed_dim: int
    image_projection: ProjectionConfig
    text_projection: ProjectionConfig
    members: tuple[ProjectionsRecipe, ...]  # each is trained by itself, with its share of hidden units; then merged
    tokenizer: TokenizerConfig
    mix: Mix
    logit_scale: float  # in training, the multiplier itself; the bundle's is fitted afterwards
    text_noise: float  # standard deviations
    image_dropout: float
    word_weight: float
    caption_weight: float
    label_repeats: int  # how often the forms of its label stand among a concept's texts: people use that word most
    synset_repeats: int  # how often the words of a WordNet meaning do
    captions_per_photograph: int
    frequent_words: int  # of Italian, whose pieces the embedded vocabulary keeps
    weight_formats: dict[str, WeightFormat]
    templates: tuple[str, ...]

    def __post_init__(self) -> None:
        if not (self.image_projection.bias and self.text_projection.bias):
            raise ValueError("both projections need a bias: what is done to features before them is folded into it")
        hidden = [projection.hidden or 0 for projection in (self.image_projection, self.text_projection)]
        if not self.members or any(units % len(self.members) for units in hidden):
            raise ValueError(f"{len(self.members)} members cannot have equal shares of {hidden} hidden units")


@dataclass(frozen=True)
class Towers:
    """The locked towers of a recipe, as bundles store them, and what belongs to them."""

    config: DualConfig
    image: Mapping[str, Array]  # normalisations folded, under "image."; float32 until it has been trained
    text: Mapping[str, Array]  # int4, under "text."
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

    def with_tower(self, image: Mapping[str, Array]) -> "Corpus":
        """The same, but with these weights in the image tower, as bundles store them."""
        return replace(self, towers=replace(self.towers, image=image))

    def at(self, image_size: int) -> "Corpus":
        """The same, but the image tower reads pictures of this size."""
        config = self.towers.config
        preprocessing = replace(config.preprocessing, image_size=image_size)
        return replace(self, towers=replace(self.towers, config=replace(config, preprocessing=preprocessing)))

    def image_tower(self, blocks: int | None = None) -> LockedTower:
        """The image tower or its first blocks, as it is run."""
        return locked_image_tower(self.towers.config, self.towers.image, blocks=blocks)

    def image_features(self, examples: Sequence[Example], *, blocks: int | None = None) -> tuple[Array, Array]:
        """(N, D) float16 and which could be read (N,) bool, in shards that are made once.

        With `blocks`, what so many blocks of the image tower give instead: maps (N, H, W, C).
        """
        tower = self.image_tower(blocks)
        paths = [self.root / example.path for example in examples]
        return image_features(tower, paths, self.towers.config, self.work / ("features" if blocks is None else "maps"))

    def text_features(self, texts: Sequence[str]) -> Array:
        """(N, D) float16, in shards that are made once."""
        return text_features(self._text_tower, texts, self.towers.tokenizer, self.work / "features")


def prepare(recipe: Recipe, root: Path, work: Path, *, without: Sequence[str] = ()) -> str:
    """Writes work/manifest.jsonl; returns a line on what was left out."""
    unknown = set(without) - {source.name for source in recipe.sources}
    if unknown:
        raise ValueError(f"--without names no source of the recipe: {', '.join(sorted(unknown))}")
    sources = [source for source in recipe.sources if source.name not in without]
    return str(write_manifest(sources, root, work / "manifest.jsonl"))
