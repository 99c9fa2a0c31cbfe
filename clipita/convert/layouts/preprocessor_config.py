"""Read how a checkpoint prepares images, from transformers' files or open_clip's `preprocess_cfg`.

A setting that a file leaves out has the default of the image processor that the file names, as
`transformers/models/*/image_processing_*.py` and `open_clip/transform.py` state it.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from clipita.convert.folder.files import json_in
from clipita.errors import CheckpointError
from clipita.images.pixels import Preprocessing

_OPENAI_MEAN, _OPENAI_STD = [0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]
_HALF = [0.5, 0.5, 0.5]
_NEAREST, _BILINEAR, _BICUBIC = 0, 2, 3  # PIL.Image.Resampling
_FILTERS = {_NEAREST: "nearest", _BILINEAR: "bilinear", _BICUBIC: "bicubic"}

_COMMON = {"do_resize": True, "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True}
# The defaults by the name of the processor without its endings. "default_to_square" says whether a bare number as
# `size` is the side of a square or the shortest side.
_FAMILIES: dict[str, dict[str, Any]] = {
    "CLIP": _COMMON
    | {
        "size": {"shortest_edge": 224},
        "default_to_square": False,
        "resample": _BICUBIC,
        "do_center_crop": True,
        "crop_size": 224,
    }
    | {"image_mean": _OPENAI_MEAN, "image_std": _OPENAI_STD},
    "ViT": _COMMON
    | {"size": {"height": 224, "width": 224}, "default_to_square": True, "resample": _BILINEAR, "do_center_crop": False}
    | {"image_mean": _HALF, "image_std": _HALF},
    "Siglip": _COMMON
    | {"size": {"height": 224, "width": 224}, "default_to_square": True, "resample": _BICUBIC, "do_center_crop": False}
    | {"image_mean": _HALF, "image_std": _HALF},
}
_ENDINGS = ("ImageProcessor", "ImageProcessorFast", "ImageProcessorPil", "FeatureExtractor")
# Settings without effect on the pixels: any image is converted to RGB here, and the towers lay out their tensors.
_WITHOUT_EFFECT = frozenset(
    [
        "do_convert_rgb",
        "processor_class",
        "image_processor_type",
        "feature_extractor_type",
        "data_format",
        "device",
        "input_data_format",
        "return_tensors",
        "disable_grouping",
        "auto_map",
        "_processor_class",
        "_valid_processor_keys",
    ]
)
# Steps of other processors, which None or false turn off.
_MUST_BE_OFF = frozenset(["do_pad", "pad_size", "use_square_size", "do_reduce_labels", "image_seq_length"])
_MAX_SIDE = 4096  # pixels; towers read a few hundred


def preprocessing_of(folder: Path, *, default: Preprocessing) -> Preprocessing:
    """Read the preprocessing of a transformers checkpoint.

    It is in `processor_config.json`, where transformers 5 writes it and looks first, or in `preprocessor_config.json`.

    Args:
        folder: The checkpoint.
        default: The preprocessing if neither file is there; it also stands in for settings that a file leaves out.

    Raises:
        CheckpointError: A setting is not known, or cannot be followed by clipita. The message names it.
    """
    name, given = "processor_config.json", (json_in(folder, "processor_config.json") or {}).get("image_processor")
    if given is None:
        name, given = "preprocessor_config.json", json_in(folder, "preprocessor_config.json")
    if given is None:
        return default
    where = f"'{folder / name}'"
    if not isinstance(given, dict):
        raise CheckpointError(f"{where}: 'image_processor' must be an object, but it is a {type(given).__name__}.")
    return _from_settings(cast("dict[str, Any]", given), default, where)


def _from_settings(given: Mapping[str, Any], default: Preprocessing, where: str) -> Preprocessing:
    named = given.get("image_processor_type") or given.get("feature_extractor_type")
    family = _family(named, default, where)
    _refuse_unknown(given, family, where)
    settings = {**family, **{key: value for key, value in given.items() if value is not None}}

    if settings["do_resize"] is not True:
        raise _unsupported(where, "do_resize", settings["do_resize"], "true: towers read squares of one size")
    size = _sides(settings["size"], settings["default_to_square"], where, "size")
    crop = _sides(settings.get("crop_size"), True, where, "crop_size") if settings["do_center_crop"] is True else None
    factor = settings["rescale_factor"] if settings["do_rescale"] is True else 1.0
    if type(factor) not in (int, float) or not 0 < factor <= 1:
        raise _unsupported(where, "rescale_factor", factor, "a number above 0 and up to 1")
    mean, std = (settings["image_mean"], settings["image_std"]) if settings["do_normalize"] is True else (0.0, 1.0)
    if type(settings["resample"]) is not int or settings["resample"] not in _FILTERS:
        raise _unsupported(where, "resample", settings["resample"], "0 (nearest), 2 (bilinear) or 3 (bicubic)")
    return _preprocessing(
        where,
        **_geometry(size, crop, where),
        interpolation=_FILTERS[settings["resample"]],
        mean=_channels(mean, factor, where, "image_mean"),
        std=_channels(std, factor, where, "image_std"),
        crop="floor",
    )


def open_clip_preprocessing(settings: Mapping[str, Any], *, image_size: int, where: str) -> Preprocessing:
    """Read the `preprocess_cfg` of an `open_clip_config.json`.

    Args:
        settings: The object.
        image_size: The side of the square that the image tower reads.
        where: The beginning of every message.

    Raises:
        CheckpointError: A setting is not known, or cannot be followed by clipita.
    """
    defaults = {"size": image_size, "mode": "RGB", "mean": _OPENAI_MEAN, "std": _OPENAI_STD}
    defaults |= {"interpolation": "bicubic", "resize_mode": "shortest", "fill_color": 0}
    if unknown := sorted(settings.keys() - defaults.keys()):
        raise CheckpointError(f"{where} has settings that are not known: {unknown}.")
    values = {**defaults, **{key: value for key, value in settings.items() if value is not None}}
    if values["size"] not in (image_size, [image_size] * 2, [3, image_size, image_size]):
        raise _unsupported(where, "size", values["size"], f"{image_size}, which its image tower reads")
    if values["mode"] != "RGB":
        raise _unsupported(where, "mode", values["mode"], "'RGB'")
    return _preprocessing(
        where,
        image_size=image_size,
        resize=values["resize_mode"],
        interpolation="bicubic" if values["interpolation"] == "random" else values["interpolation"],
        mean=_channels(values["mean"], 1 / 255, where, "mean"),
        std=_channels(values["std"], 1 / 255, where, "std"),
        fill=values["fill_color"],
    )


def _family(named: object, default: Preprocessing, where: str) -> dict[str, Any]:
    if named is None:  # an early file names no processor, and has the defaults of its model
        return _FAMILIES["Siglip" if default.resize == "squash" else "CLIP"]
    for name, family in _FAMILIES.items():
        if named in [name + ending for ending in _ENDINGS]:
            return family
    known = ", ".join(f"{name}ImageProcessor" for name in _FAMILIES)
    raise _unsupported(
        where, "image_processor_type", named, f"one of {known}, or their Fast and FeatureExtractor names"
    )


def _refuse_unknown(given: Mapping[str, Any], family: Mapping[str, Any], where: str) -> None:
    known = family.keys() | _WITHOUT_EFFECT | {"crop_size"}
    for name, value in given.items():
        if name in _MUST_BE_OFF and value not in (None, False):
            raise _unsupported(where, name, value, "false")
        if name not in known and name not in _MUST_BE_OFF:
            raise _unsupported(where, name, value, "nothing: clipita does not know this setting")


def _sides(size: Any, square: object, where: str, name: str) -> tuple[int, int | None]:
    """Read a size as (height, width), or as (shortest side, None)."""
    if isinstance(size, dict):
        sides = {key: side for key, side in cast("dict[str, object]", size).items() if side is not None}
    else:
        sides = {"height": size, "width": size} if square is True else {"shortest_edge": size}
    if any(type(side) is not int or not 1 <= side <= _MAX_SIDE for side in sides.values()):
        raise _unsupported(where, name, cast(object, size), f"sides from 1 to {_MAX_SIDE} pixels")
    numbers = cast("dict[str, int]", sides)
    if numbers.keys() == {"height", "width"}:
        return numbers["height"], numbers["width"]
    if numbers.keys() == {"shortest_edge"}:
        return numbers["shortest_edge"], None
    raise _unsupported(where, name, cast(object, size), "a number, a height and a width, or a shortest_edge")


def _geometry(size: tuple[int, int | None], crop: tuple[int, int | None] | None, where: str) -> dict[str, Any]:
    height, width = size
    if width is None:
        if crop is None or crop[0] != crop[1]:
            raise _unsupported(where, "crop_size", crop, "a square: without one, towers would get images of any shape")
        return {"image_size": crop[0], "resize": "shortest", "short_side": None if height == crop[0] else height}
    if height != width or crop not in (None, size):
        raise _unsupported(where, "size", list(size), "a square, and a crop of the same size or none")
    return {"image_size": height, "resize": "squash"}


def _channels(values: object, factor: float, where: str, name: str) -> list[float]:
    """Convert a mean or std to units of 0..255: (p * factor - mean) / std is (p - mean / factor) / (std / factor)."""
    listed: list[Any] = cast("list[Any]", values) if isinstance(values, list) else [values] * 3
    if len(listed) != 3 or any(type(value) not in (int, float) or not 0 <= value < 256 for value in listed):
        raise _unsupported(where, name, cast(object, values), "three numbers from 0 to 255")
    return [value / factor for value in listed]


def _preprocessing(where: str, **fields: Any) -> Preprocessing:
    """Make a `Preprocessing` through the checks that the object of a bundle goes through."""
    return Preprocessing.from_dict(fields | {"transparency": "drop"}, where)


def _unsupported(where: str, name: str, value: object, expected: str) -> CheckpointError:
    return CheckpointError(
        f"{where}: {name!r} is {str(value)[:80]!r}, expected {expected}. "
        "clipita cannot follow it; its embeddings would not be those of the model."
    )
