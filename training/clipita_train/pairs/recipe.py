"""What a recipe for whole towers says: pairs of photographs and captions, backbones, loss and stages. Plain data."""

from dataclasses import dataclass, field, replace
from typing import Literal

from clipita.towers.config import ProjectionConfig
from clipita_train.augment.presets import PRESETS
from clipita_train.engine.config import LossConfig, TrainConfig, check_choices, require
from clipita_train.towers.choices import ImageBackbone, TextBackbone


@dataclass(frozen=True)
class PairSource:
    """A list of photographs with captions; the paths are below `DataConfig.root`.

    Formats: "json_lines", of {"image_path": ..., "captions": [...]}, and "mscoco_it", both with a folder of images;
    "sidecars", a folder with NAME.txt beside NAME.jpg; "shards", a folder as `clipita_train.data.shards` writes it.
    """

    name: str
    path: str
    format: Literal["json_lines", "mscoco_it", "sidecars", "shards"] = "json_lines"
    images: str = "."
    validation: str | None = None  # another such list; without it a share of this one is held back
    weight: float = 1.0  # how often its pairs are drawn, relative to those of others

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.weight > 0, "weight", "> 0 (leave a source out by the recipe)", self.weight)


@dataclass(frozen=True)
class DataConfig:
    """Where pairs come from, and how many threads decode and tokenise them."""

    sources: tuple[PairSource, ...]
    root: str = "."
    validation_share: float = 0.05  # of the photographs of every source that has no list of its own for it
    threads: int = 2

    def __post_init__(self) -> None:
        require(len(self.sources) >= 1, "sources", "at least one source", self.sources)
        require(0 <= self.validation_share < 1, "validation_share", "a share in [0, 1)", self.validation_share)
        require(self.threads >= 0, "threads", ">= 0", self.threads)


@dataclass(frozen=True)
class PairRecipe:
    """Everything that decides what comes out, but for the pairs themselves.

    Attributes:
        licence: of the weights that come out.
        only: names of the stages that are run; empty for all of them.
        augmentation: one of `clipita_train.augment.presets.PRESETS`.
        spare_sides: never mirror a photograph whose caption says left or right, where the augmentation mirrors.
        dtype: what the towers' products are computed in; weights, sums over layers, norms and loss are float32.
        rematerialise: compute what is inside the towers' layers again for gradients, instead of keeping it.
        chunks: into how many parts a batch goes through the towers, see `clipita_train.engine.gradient_cache`.
        cache_features: compute what a locked tower gives once for all, without dropout, where augmentation does not
            change what it sees.
        features: the folder where that is kept, which runs may share; None: "features" in the run's own.
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
        """`train` with those stages alone that are run."""
        stages = self.train.stages
        return replace(self.train, stages=tuple(s for s in stages if not self.only or s.name in self.only))
