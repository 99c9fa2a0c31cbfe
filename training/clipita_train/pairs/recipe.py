"""Recipes for whole towers, as plain data: pairs of photographs and captions, backbones, loss and stages."""

from dataclasses import dataclass, field, replace
from typing import Literal

from clipita.towers.config import ProjectionConfig
from clipita_train.augment.presets import PRESETS
from clipita_train.engine.config import LossConfig, TrainConfig, check_choices, require
from clipita_train.towers.choices import ImageBackbone, TextBackbone


@dataclass(frozen=True)
class PairSource:
    """A list of photographs with captions; its paths are relative to `DataConfig.root`.

    The formats are "json_lines", with {"image_path": ..., "captions": [...]} on each line, and "mscoco_it", both with a
    folder of images; "sidecars", a folder with NAME.txt beside NAME.jpg; and "shards", a folder that
    `clipita_train.data.shards` has written.
    """

    name: str
    path: str
    format: Literal["json_lines", "mscoco_it", "sidecars", "shards"] = "json_lines"
    images: str = "."
    validation: str | None = None  # path of a list for validation; None takes a share of this one
    weight: float = 1.0  # how often its pairs are drawn, relative to other sources

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.weight > 0, "weight", "> 0 (to leave a source out, take it out of the recipe)", self.weight)


@dataclass(frozen=True)
class DataConfig:
    """The sources of pairs, and how many threads decode and tokenize."""

    sources: tuple[PairSource, ...]
    root: str = "."
    validation_share: float = 0.05  # share of the photographs of each source without a list for validation
    threads: int = 2

    def __post_init__(self) -> None:
        require(len(self.sources) >= 1, "sources", "at least one source", self.sources)
        require(0 <= self.validation_share < 1, "validation_share", "a share in [0, 1)", self.validation_share)
        require(self.threads >= 0, "threads", ">= 0", self.threads)


@dataclass(frozen=True)
class PairRecipe:
    """Everything that decides the trained weights, except the pairs themselves.

    Attributes:
        name: Name of the model.
        licence: License of the trained weights.
        data: The pairs.
        image: The image tower.
        text: The text tower.
        train: The stages.
        embed_dim: Dimensions of the embeddings.
        image_projection: Architecture of the projection of images.
        text_projection: Architecture of the projection of texts.
        loss: The loss.
        only: Names of the stages to run; empty runs all.
        augmentation: One of `clipita_train.augment.presets.PRESETS`.
        spare_sides: Never mirror a photograph whose caption says left or right.
        dtype: Type in which products within towers are computed; weights, sums over layers, norms and loss are float32.
        rematerialise: Compute activations within the towers' layers again for gradients, instead of keeping them.
        chunks: How many parts of a batch go through the towers one by one, see `clipita_train.engine.gradient_cache`.
        cache_features: Compute the features of a locked tower only once, without dropout, unless augmentation changes
            its input.
        features: The folder where these are kept, which runs may share; None: "features" in the folder of the run.
        templates: The templates of labels that the bundle states.
    """

    name: str
    licence: str
    data: DataConfig
    image: ImageBackbone
    text: TextBackbone
    train: TrainConfig
    embed_dim: int = 512
    image_projection: ProjectionConfig = field(default=ProjectionConfig())
    text_projection: ProjectionConfig = field(default=ProjectionConfig())
    loss: LossConfig = field(default=LossConfig())
    only: tuple[str, ...] = ()
    augmentation: str = "none"
    spare_sides: bool = True
    dtype: Literal["float32", "bfloat16"] = "float32"
    rematerialise: bool = False
    chunks: int = 1
    cache_features: bool = True
    features: str | None = None
    templates: tuple[str, ...] = ("{}",)

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.augmentation in PRESETS, "augmentation", f"one of {', '.join(PRESETS)}", self.augmentation)
        require(self.chunks >= 1, "chunks", ">= 1", self.chunks)
        names = [stage.name for stage in self.train.stages]
        require(set(self.only) <= set(names), "only", f"names of stages ({', '.join(names)})", self.only)

    @property
    def training(self) -> TrainConfig:
        """`train` with only the stages that are run."""
        stages = self.train.stages
        return replace(self.train, stages=tuple(s for s in stages if not self.only or s.name in self.only))
