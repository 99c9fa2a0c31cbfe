"""Recipes for projections, as plain data, and the material that a recipe is trained on, on this machine.

`clipita_train.concepts.run` trains a recipe's projections, and `clipita_train.concepts.export` writes a bundle.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from clipita.convert.layouts.efficientnet_lite import PIXEL_MEAN, PIXEL_STD, fold_batch_norm
from clipita.convert.weights.quantize import SMALL, WeightFormat
from clipita.images.pixels import Preprocessing
from clipita.system.arrays import Array
from clipita.text.tokenizer import Tokenizer, TokenizerConfig
from clipita.towers.config import DualConfig, ProjectionConfig
from clipita_train.concepts.batches import Mix
from clipita_train.concepts.tail import first_block, learns
from clipita_train.data.concepts import load_ontology
from clipita_train.data.photographs.collection import Collection
from clipita_train.data.photographs.example import Example
from clipita_train.data.photographs.manifest import read_manifest, write_manifest
from clipita_train.data.wordnet import Synset, read_synsets
from clipita_train.engine.config import TrainConfig
from clipita_train.evaluate.everyday.sets import kept_out_hashes, kept_out_repositories
from clipita_train.towers.features import (
    LockedTower,
    features_of_maps,
    image_features,
    locked_image_end,
    locked_image_tower,
    locked_text_tower,
    text_features,
)
from clipita_train.towers.pretrained import e5_small, e5_tokenizer, efficientnet_lite


@dataclass(frozen=True)
class ProjectionsRecipe:
    """The training of one pair of projections."""

    boosts: dict[str, float]  # name of a source to how many times as often its photographs are drawn
    train: TrainConfig
    text_drift: float = 0.0  # see `clipita_train.concepts.projections.projection_loss`


@dataclass(frozen=True)
class TailRecipe:
    """The training of the end of the image tower, together with projections that are thrown away afterwards.

    Photographs may be smaller here than those that the finished model reads, since maps of the block before the tail
    are cached for each photograph.
    """

    blocks: int  # how many of the last blocks; stages unlock them, with the head, as "image_tail"
    image_size: int
    projections: ProjectionsRecipe

    def __post_init__(self) -> None:
        if not any(learns(stage) for stage in self.projections.train.stages):
            raise ValueError(
                "no stage trains the tail of the image tower: add a rule for image_tail to a stage, or set tail to None"
            )


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the trained weights, except the photographs themselves."""

    name: str
    licence: str  # license of the trained weights
    sources: tuple[Collection, ...]
    lite_variant: int  # EfficientNet-lite 0, 1 or 2
    tail: TailRecipe | None  # None: the image tower stays as it is
    image_size: int
    embed_dim: int
    image_projection: ProjectionConfig
    text_projection: ProjectionConfig
    members: tuple[
        ProjectionsRecipe, ...
    ]  # each is trained by itself, with an equal share of the hidden units; then all are merged
    tokenizer: TokenizerConfig
    mix: Mix
    logit_scale: float  # the multiplier in training; that of the bundle is fitted afterwards
    text_noise: float  # its standard deviation, in standard deviations of the features
    image_dropout: float
    word_weight: float
    caption_weight: float
    label_repeats: int  # how often the forms of a label stand among the texts of its concept: people use that word most
    synset_repeats: int  # how often the words of a WordNet meaning stand there
    captions_per_photograph: int
    frequent_words: int  # number of frequent Italian words whose pieces the vocabulary keeps
    weight_formats: dict[str, WeightFormat]
    templates: tuple[str, ...]
    integer_images: bool = (
        False  # whether the exported image tower multiplies in integers; `weight_formats` is SMALL then
    )

    def __post_init__(self) -> None:
        if self.integer_images and self.weight_formats != SMALL:
            raise ValueError("images are computed in integers of weights stored as SMALL: set weight_formats to that")
        if not (self.image_projection.bias and self.text_projection.bias):
            raise ValueError("both projections need a bias: what is done to features before them is folded into it")
        hidden = [projection.hidden or 0 for projection in (self.image_projection, self.text_projection)]
        if not self.members or any(units % len(self.members) for units in hidden):
            raise ValueError(
                f"{len(self.members)} members cannot have equal shares of {hidden} hidden units: "
                "choose numbers that they divide"
            )


@dataclass(frozen=True)
class Towers:
    """The locked towers of a recipe, as bundles store them, with their classifier and tokenizer."""

    config: DualConfig
    image: Mapping[str, Array]  # under "image.", batch norms folded; float32 unless it has been trained
    text: Mapping[str, Array]  # int4, under "text."
    classifier_rows: Array  # (1000, D)
    tokenizer: Tokenizer
    tokenizer_file: Path


def load_towers(recipe: Recipe) -> Towers:
    """Load the pretrained towers from the packages that carry them.

    Raises:
        FileNotFoundError: A package is not installed; the message says how to install it.
    """
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
    """The material of a recipe on this machine: photographs, WordNets, and the folder of cached features."""

    recipe: Recipe
    towers: Towers
    root: Path  # the folder of the photographs
    nouns: Path  # the file data.noun of WordNet
    omw: Path  # the folder wns of omw-data
    work: Path
    mapped_by: Mapping[str, Array] | None = None  # see `with_end`

    @cached_property
    def examples(self) -> list[Example]:
        """The examples in the manifest of `work`."""
        return read_manifest(self.work / "manifest.jsonl")

    @cached_property
    def synsets(self) -> list[Synset]:
        """WordNet meanings with their words, without phrasings that are held out."""
        held_out = [phrase for concept in load_ontology().concepts for phrase in concept.held_out]
        return read_synsets(self.nouns, self.omw, without=held_out)

    @cached_property
    def _text_tower(self) -> LockedTower:  # cached: it runs words, phrases and captions
        return locked_text_tower(self.towers.config, self.towers.text, self.towers.tokenizer)

    def with_tower(self, image: Mapping[str, Array]) -> "Corpus":
        """Return the same corpus with these weights, as bundles store them, in the image tower."""
        return replace(self, towers=replace(self.towers, image=image))

    def with_end(self, image: Mapping[str, Array]) -> "Corpus":
        """Return the same corpus with these weights, of which those of the recipe's tail alone are others than before.

        Features then come from the maps that are kept of the blocks before the tail, and not from photographs.
        """
        return replace(self.with_tower(image), mapped_by=self.towers.image)

    def at(self, image_size: int) -> "Corpus":
        """Return the same corpus with an image tower that reads pictures of this size."""
        config = self.towers.config
        preprocessing = replace(config.preprocessing, image_size=image_size)
        return replace(self, towers=replace(self.towers, config=replace(config, preprocessing=preprocessing)))

    def image_tower(self) -> LockedTower:
        """Return the image tower, ready to run."""
        return locked_image_tower(self.towers.config, self.towers.image)

    def image_features(self, examples: Sequence[Example]) -> tuple[Array, Array]:
        """Compute pooled features of photographs, or read them from the cache.

        Args:
            examples: The photographs.

        Returns:
            (N, D) float16; and (N,) bool, which photographs could be read.
        """
        paths, config = self._paths(examples), self.towers.config
        if self.mapped_by is None:
            return image_features(self.image_tower(), paths, config, self.work / "features")
        assert self.recipe.tail is not None
        first = first_block(config, self.recipe.tail.blocks)
        before = locked_image_tower(config, self.mapped_by, blocks=first)
        end = locked_image_end(config, self.towers.image, first, before)
        return features_of_maps(before, end, paths, config, self.work / "features", self.work / "maps")

    def image_maps(self, examples: Sequence[Example], blocks: int) -> tuple[Array, Array]:
        """Compute the maps (N, H, W, C) float16 that the first `blocks` blocks give; else as `image_features`."""
        tower = locked_image_tower(self.towers.config, self.towers.image, blocks=blocks)
        return image_features(tower, self._paths(examples), self.towers.config, self.work / "maps")

    def _paths(self, examples: Sequence[Example]) -> list[Path]:
        return [self.root / example.path for example in examples]

    def text_features(self, texts: Sequence[str]) -> Array:
        """Compute pooled features (N, D) float16 of texts, or read them from the cache."""
        return text_features(self._text_tower, texts, self.towers.tokenizer, self.work / "features")


def prepare(recipe: Recipe, root: Path, work: Path, *, without: Sequence[str] = ()) -> str:
    """Write `work`/manifest.jsonl, the list of photographs to train and judge on.

    Args:
        recipe: Names the sources.
        root: Holds the clones of the sources.
        work: The folder of the manifest.
        without: Names of sources to leave out.

    Returns:
        A line on the photographs that were left out.

    Raises:
        ValueError: `without` names a source that the recipe does not have, or a source is kept out for evaluation.
    """
    unknown = set(without) - {source.name for source in recipe.sources}
    if unknown:
        raise ValueError(
            f"the recipe has no source {', '.join(sorted(unknown))} to leave out: see clipita-train sources"
        )
    sources = [source for source in recipe.sources if source.name not in without]
    reserved = {name for source in sources for name in (source.repository, *source.further)} & kept_out_repositories()
    if reserved:
        raise ValueError(
            f"{', '.join(sorted(reserved))}: kept out of training, since `clipita-train evaluate everyday` judges on "
            "photographs of these repositories; take the sources out of the recipe, or leave them out by name"
        )
    return str(write_manifest(sources, root, work / "manifest.jsonl", kept_out_hashes()))
