"""The example: a photograph on disk and what it shows, or what people wrote of it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """One photograph: what it shows (a concept id), or what people wrote of it (captions)."""

    path: str  # relative to the data root
    source: str
    split: str  # "train" or "dev"
    concept: str | None = None
    captions: tuple[str, ...] = ()
    judged_as: str | None = None  # the broader concept that a development set asks for, where that is another

    def to_json(self) -> dict[str, object]:
        """The example without its empty fields: a line of a manifest."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Example":
        """The inverse of `to_json`."""
        return cls(**{**fields, "captions": tuple(fields.get("captions", ()))})
