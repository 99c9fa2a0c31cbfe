"""How a recipe names its pretrained towers. Plain data."""

from dataclasses import dataclass
from typing import Literal

from clipita_train.engine.config import check_choices, require


@dataclass(frozen=True)
class ImageBackbone:
    """A pretrained image tower: a name on the hub, a folder, or "efficientnet-lite0", 1 or 2 of the packages.

    Of a checkpoint with two towers the image half is taken.
    """

    source: str
    revision: str | None = None
    size: int | None = None  # side of its images; vision transformers have one of their own, which None takes
    margin: int = 32  # pixels that augmentation may crop from, beyond that side


@dataclass(frozen=True)
class TextBackbone:
    """A pretrained text tower: a name on the hub, a folder, or "multilingual-e5-small" of the packages."""

    source: str
    revision: str | None = None
    pooling: Literal["pooler", "cls", "mean"] | None = None  # of BERT's family; None: its own pooler
    max_tokens: int | None = None  # None: as many as it has positions for
    lengths: tuple[int, ...] = ()  # to which texts are padded, beside that limit: each is compiled once
    prefix: str = ""
    frequent_words: int | None = None  # cut a multilingual vocabulary to what so many Italian words need
    layers: int | None = None  # keep the first so many; None: all
    dropout: float = 0.0  # wherever a training step runs the tower; BERT was pretrained with 0.1

    def __post_init__(self) -> None:
        check_choices(self)
        require(0 <= self.dropout < 1, "dropout", "a share in [0, 1)", self.dropout)
