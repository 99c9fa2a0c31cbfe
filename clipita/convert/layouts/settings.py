"""Read checked numbers and names from a `config.json`, with the defaults that its library leaves out."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from clipita.convert.folder.files import json_in
from clipita.errors import CheckpointError
from clipita.towers.config import Activation

ACTIVATIONS: dict[str, Activation] = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}


class Settings:
    """One object of a configuration.

    Args:
        values: The object.
        where: The beginning of every message.
        defaults: Values for keys that the object lacks.
    """

    def __init__(self, values: Mapping[str, Any], where: str, defaults: Mapping[str, Any] | None = None) -> None:
        self._values = {**(defaults or {}), **{key: value for key, value in values.items() if value is not None}}
        self.where = where

    @classmethod
    def read(cls, path: Path) -> "Settings":
        """Read the object of a file.

        Raises:
            CheckpointError: The file is missing, or holds no JSON object.
        """
        values = json_in(path.parent, path.name)
        if values is None:
            raise CheckpointError(f"'{path.parent}' lacks the file '{path.name}'. Download the whole repository.")
        return cls(values, f"'{path}'")

    def __contains__(self, key: str) -> bool:
        return key in self._values

    def with_defaults(self, defaults: Mapping[str, Any]) -> "Settings":
        """Return the same object with values for the keys that it lacks."""
        return Settings(self._values, self.where, defaults)

    def updated(self, other: "Settings") -> "Settings":
        """Return the same object with the values of `other` in place of its own."""
        return Settings({**self._values, **other._values}, self.where)

    def part(self, key: str) -> "Settings":
        """Return the object under `key`; an empty one if there is none."""
        value = self._values.get(key, {})
        if not isinstance(value, dict):
            raise self.error(key, "an object")
        return Settings(cast("dict[str, Any]", value), f"{self.where}: {key}")

    def mapping(self, key: str) -> Mapping[str, Any]:
        """Return the object under `key` as a plain mapping; an empty one if there is none."""
        return self.part(key)._values

    def count(self, key: str) -> int:
        """Return a whole number from 0 on."""
        value = self._values.get(key)
        if type(value) is not int or value < 0:
            raise self.error(key, "a whole number from 0 on")
        return value

    def number(self, key: str) -> float:
        """Return a number."""
        value = self._values.get(key)
        if type(value) not in (int, float):
            raise self.error(key, "a number")
        return float(cast(Any, value))

    def text(self, key: str) -> str:
        """Return a string."""
        value = self._values.get(key)
        if not isinstance(value, str):
            raise self.error(key, "a string")
        return value

    def flag(self, key: str, default: bool) -> bool:
        """Return true or false."""
        value = self._values.get(key, default)
        if not isinstance(value, bool):
            raise self.error(key, "true or false")
        return value

    def side(self, key: str) -> int:
        """Return the side of a square, which is written as one number or as two."""
        value = self._values.get(key)
        sides = cast("list[Any]", value if isinstance(value, list) else [value])
        if not sides or any(type(side) is not int or side < 1 or side != sides[0] for side in sides):
            raise self.error(key, "the side of a square")
        return sides[0]

    def activation(self, key: str) -> Activation:
        """Return the activation function of an MLP, by our name."""
        if (name := self.text(key)) not in ACTIVATIONS:
            raise self.error(key, f"one of {', '.join(ACTIVATIONS)}")
        return ACTIVATIONS[name]

    def one_of(self, key: str, *known: str) -> str:
        """Return one of the `known` strings, the first of which is the default."""
        value = self._values.get(key, known[0])
        if value not in known:
            raise self.error(key, f"one of {', '.join(map(repr, known))}")
        return cast("str", value)

    def require(self, **expected: Any) -> None:
        """Refuse settings that differ from the only supported value; they would change the embeddings."""
        for key, value in expected.items():
            if key in self._values and self._values[key] != value:
                raise self.error(key, repr(value))

    def error(self, key: str, expected: str) -> CheckpointError:
        """Return the error for a `key` whose value is not as expected."""
        found = repr(self._values.get(key))
        return CheckpointError(f"{self.where}: {key!r} must be {expected}, but it is {found[:60]}.")
