"""The settings by which recipes name their pretrained towers, as plain data."""

from dataclasses import dataclass
from typing import Literal

from clipita_train.engine.config import check_choices, require


@dataclass(frozen=True)
class ImageBackbone:
    """A pretrained image tower: a name on the hub, a folder, or "efficientnet-lite0", 1 or 2 from the packages.

    If a checkpoint has two towers, its image tower is taken.
    """

    source: str
    revision: str | None = None
    size: int | None = None  # side of its images; None takes its own, which vision transformers need
    margin: int = 32  # pixels beyond that side, for augmentation to crop from


@dataclass(frozen=True)
class TextBackbone:
    """A pretrained text tower: a name on the hub, a folder, or "multilingual-e5-small" from the packages."""

    source: str
    revision: str | None = None
    pooling: Literal["pooler", "cls", "mean"] | None = None  # for towers of BERT's family; None: its own pooler
    max_tokens: int | None = None  # None: as many as it takes
    lengths: tuple[int, ...] = ()  # texts are padded to the shortest of these, or to the limit; each is compiled once
    prefix: str = ""
    frequent_words: int | None = None  # cut a multilingual vocabulary to the pieces of so many Italian words
    layers: int | None = None  # how many of the first layers to keep; None: all
    dropout: float = 0.0  # in training steps, also of a locked tower; BERT was pretrained with 0.1

    def __post_init__(self) -> None:
        check_choices(self)
        require(0 <= self.dropout < 1, "dropout", "a share in [0, 1)", self.dropout)
