"""Bound the numbers and texts of `clipita.json`, before anything is built by them.

An image of 2**31 pixels a side, or a prefix of 30 MB before each text, would take all memory. The limits are far above
the values of any tower in use; a file that passes them means harm.
"""

from collections.abc import Mapping
from typing import Any, cast

from clipita.errors import CheckpointError

MAX_TEXT = 1000  # characters of a name, a template or a prefix; the longest prefixes in use have 300
_MAX_ENTRIES = 1000  # CLIP's list of templates has 80
_MAX_DEPTH = 4
_MAX_NUMBER = 1 << 24  # the largest numbers in use are counts of pieces in a vocabulary: a million

# The least and the most of each field, by its name, wherever it is. The largest value in use stands behind it.
_WHOLE = {
    "image_size": (1, 2048),  # 512
    "short_side": (1, 2048),
    "patch": (1, 2048),  # 32
    "max_tokens": (1, 1 << 16),  # 8,192
    "positions": (1, 1 << 16),
    "embed_dim": (1, 1 << 16),  # 4,096
    "vocabulary": (1, _MAX_NUMBER),  # 500,000
    "layers": (1, 256),  # 48
    "heads": (1, 1024),  # 32
    "hidden": (1, 1 << 16),  # 5,120
    "mlp_width": (1, 1 << 17),  # 16,384
    "stem_width": (1, 1 << 14),
    "head_width": (1, 1 << 16),
    "token_types": (0, 1024),  # 2
}
_REAL = {
    "logit_scale": (0.0, 1e6),  # 117
    "logit_bias": (-1e6, 1e6),  # -17
    "epsilon": (0.0, 1.0),  # 1e-3
    "width": (0.0, 1 << 16),  # channels of a transformer (1,664), a factor of an EfficientNet
    "depth": (0.0, 10.0),  # 3.1
}
_ABOVE_ZERO = ("logit_scale", "epsilon", "width")


def check_limits(values: Mapping[str, Any], where: str) -> None:
    """Refuse numbers, texts, lists and nesting that are far beyond those of any model.

    Types are not checked here, but where a field is used.

    Args:
        values: The whole of `clipita.json`.
        where: The beginning of every message.

    Raises:
        CheckpointError: A value is outside its limits; the message names the field.
    """
    for key, value in values.items():
        _check(value, key, f"{where}: {key[:80]!r}", 0)


def _check(value: object, key: str, where: str, depth: int) -> None:
    if depth > _MAX_DEPTH:
        raise CheckpointError(f"{where} nests deeper than {_MAX_DEPTH} levels. Export the bundle again.")
    if isinstance(value, str):
        _short(len(value), "characters", MAX_TEXT, where)
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise CheckpointError(f"{where} holds half a character (a lone surrogate). Export the bundle again.")
    elif isinstance(value, Mapping):
        items = cast("Mapping[str, object]", value)
        _short(len(items), "entries", _MAX_ENTRIES, where)
        for name, item in items.items():
            _short(len(name), "characters in a key", MAX_TEXT, where)
            _check(item, name, f"{where}[{name!r}]", depth + 1)
    elif isinstance(value, list | tuple):
        listed = cast("list[object]", value)
        _short(len(listed), "entries", _MAX_ENTRIES, where)
        for index, item in enumerate(listed):
            _check(item, "", f"{where}[{index}]", depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        _check_number(value, key, where)


def _check_number(value: float, key: str, where: str) -> None:
    least, most = _WHOLE.get(key) or _REAL.get(key) or (-_MAX_NUMBER, _MAX_NUMBER)
    above_zero = key in _ABOVE_ZERO
    if not least <= value <= most or (above_zero and value == 0):
        if isinstance(value, float):
            shown = f"{value:.6g}"
        else:
            shown = f"{value:,}" if abs(value) < 1 << 64 else f"of {len(str(abs(value)))} digits"
        expected = f"more than {least:,} and at most {most:,}" if above_zero else f"from {least:,} to {most:,}"
        raise CheckpointError(f"{where} is {shown}, expected a number {expected}. Export the bundle again.")


def _short(found: int, what: str, most: int, where: str) -> None:
    if found > most:
        raise CheckpointError(f"{where} has {found:,} {what}, expected up to {most:,}. Export the bundle again.")
