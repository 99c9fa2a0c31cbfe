"""Read JSON objects into frozen dataclasses strictly: unknown, missing and mistyped keys are errors."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, cast

from clipita.errors import CheckpointError

T = TypeVar("T")

_LONGEST_NAME = 200


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a sentence for the end of an error, which offers the known name nearest to `name`; "" if none is near."""
    # The time of the comparison grows with the square of the length.
    near = difflib.get_close_matches(name, list(known), n=1) if len(name) <= _LONGEST_NAME else []
    return f" Did you mean {near[0]!r}?" if near else ""


def from_mapping(cls: type[T], data: object, where: str) -> T:
    """Build the dataclass `cls` from a JSON object.

    Args:
        cls: The class. A field with a default may be missing from the object.
        data: The object.
        where: The beginning of every message, e.g. "'models/x/clipita.json': text.tokenizer".

    Raises:
        CheckpointError: `data` is no object, a key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(data, dict):
        raise CheckpointError(f"{where} must be an object, but it is {_short(data)}. Export the bundle again.")
    given = cast("dict[str, Any]", data)
    fields = {field.name: field for field in dataclasses.fields(cast(Any, cls))}
    for key in given:
        if key not in fields:
            raise CheckpointError(
                f"{where} has an unknown key {_short(key)}.{did_you_mean(key, fields)} "
                "If a newer clipita wrote it: pip install -U clipita."
            )
    missing = [
        name
        for name, field in fields.items()
        if name not in given and field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise CheckpointError(f"{where} lacks {', '.join(map(repr, missing))}. Export the bundle again.")
    hints = typing.get_type_hints(cls)
    return cls(**{key: _checked(value, hints[key], f"{where}: {key!r}") for key, value in given.items()})


def _checked(value: Any, hint: Any, where: str) -> Any:
    """Return a value as the type that `hint` asks for: a list as a tuple, an int as a float."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint):
        return from_mapping(cast(Any, hint), value, where)
    if origin is tuple and isinstance(value, list):
        return tuple(_checked(item, arguments[0], where) for item in cast("list[Any]", value))
    if origin is Mapping and isinstance(value, dict):
        items = cast("dict[str, Any]", value).items()
        return {key: _checked(item, arguments[1], f"{where}[{_short(key)}]") for key, item in items}
    if origin in (typing.Union, types.UnionType):
        if value is None and types.NoneType in arguments:
            return None
        (inner,) = (argument for argument in arguments if argument is not types.NoneType)
        return _checked(value, inner, where)
    if origin is typing.Literal and value in arguments:
        return value
    # An int beyond 2**1024 is no float at all.
    is_number = type(value) is float or (type(value) is int and abs(value) < 1 << 1000)
    if hint is float and is_number and math.isfinite(value):
        return float(value)
    # Exact types are compared, because isinstance() takes a bool for an int: `true` is no number of tokens.
    if hint is Any or (hint in (bool, int, str) and type(value) is hint):
        return value
    expected = hint.__name__ if isinstance(hint, type) else str(hint).replace("typing.", "")
    raise CheckpointError(f"{where} must be {expected}, but it is {_short(value)}. Export the bundle again.")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."
