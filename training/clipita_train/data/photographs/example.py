"""Examples: photographs on disk, with what they show or what people wrote about them."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Example:
    """A photograph, with the id of the concept that it shows, or with captions."""

    path: str  # relative to the data root
    source: str
    split: str  # "train" or "dev"
    concept: str | None = None
    captions: tuple[str, ...] = ()
    judged_as: str | None = None  # the broader concept that a development set asks for, if it is not `concept`

    def to_json(self) -> dict[str, object]:
        """Return the fields that are not empty, for a line of a manifest."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "Example":
        """Make an example from what `to_json` has returned."""
        return cls(**{**fields, "captions": tuple(fields.get("captions", ()))})
