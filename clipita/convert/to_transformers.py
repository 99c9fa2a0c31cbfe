"""Write a bundle as the folder of a VisionTextDualEncoder, which the transformers library loads."""

import json
from pathlib import Path
from typing import Any

from safetensors.numpy import load_file, save_file  # pyright: ignore[reportUnknownVariableType]

from clipita.bundles.bundle import TOKENIZER, WEIGHTS, Bundle
from clipita.convert.layouts.to_vision_text import to_vision_text_dual_encoder
from clipita.convert.weights.quantize import dequantize
from clipita.errors import CheckpointError
from clipita.images.pixels import Preprocessing
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import DualConfig

_RESAMPLING = {"nearest": 0, "bilinear": 2, "bicubic": 3}  # PIL.Image.Resampling


def write_vision_text_dual_encoder(bundle: Bundle, folder: Path) -> None:
    """Write `config.json`, `model.safetensors`, the tokenizer, the preprocessing, and a model card with the license.

    Raises:
        CheckpointError: A VisionTextDualEncoder cannot have these towers, projections, bias, preprocessing or spelling.
    """
    config = bundle.config
    if config.image.get("kind") == "onnx":
        raise CheckpointError(f"{config.name!r} is an ONNX export: its weights have no names that transformers knows.")
    if config.logit_bias is not None:
        raise CheckpointError(
            f"{config.name!r} was trained with sigmoids: a VisionTextDualEncoder has no place for its logit_bias."
        )
    # Everything that may be refused is checked before anything is written.
    table = dequantize(load_file(bundle.path(WEIGHTS)))
    settings, tensors = to_vision_text_dual_encoder(DualConfig.from_bundle(config), table, config.logit_scale)
    pixels = _preprocessor(Preprocessing.from_dict(config.image["preprocessing"]))
    tokens = _tokenizer(TokenizerConfig.from_dict(config.text["tokenizer"]))

    folder.mkdir(parents=True, exist_ok=True)
    for name, content in {
        "config.json": settings,
        "preprocessor_config.json": pixels,
        "tokenizer_config.json": tokens,
    }.items():
        (folder / name).write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
    (folder / "tokenizer.json").write_bytes(bundle.path(TOKENIZER).read_bytes())
    (folder / "README.md").write_text(
        f"---\nlicense: {config.license}\n---\n\n# {config.name}\n\nFrom {config.source}, {config.revision}.\n",
        encoding="utf-8",
    )
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def _preprocessor(preprocessing: Preprocessing) -> dict[str, Any]:
    size = preprocessing.image_size
    shared = {
        "do_resize": True,
        "resample": _RESAMPLING[preprocessing.interpolation],
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [value / 255 for value in preprocessing.mean],
        "image_std": [value / 255 for value in preprocessing.std],
    }
    if preprocessing.resize == "squash":
        square = {"height": size, "width": size}
        return {"image_processor_type": "ViTImageProcessor", "size": square, **shared}
    if preprocessing.resize == "shortest":
        crop = {"do_center_crop": True, "crop_size": {"height": size, "width": size}}
        edge = {"shortest_edge": preprocessing.short_side or size}
        return {"image_processor_type": "CLIPImageProcessor", "size": edge, **crop, **shared}
    raise CheckpointError(f"no image processor of transformers resizes by {preprocessing.resize!r}.")


def _tokenizer(config: TokenizerConfig) -> dict[str, Any]:
    if config.prefix or config.nfc or config.straight_apostrophes or config.accent_apostrophes:
        raise CheckpointError(
            "this model reads texts by rules that a tokenizer of transformers does not have: a prefix, or spelling "
            "that is put right before."
        )
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "pad_token": config.pad_token,
        "model_max_length": config.max_tokens,
        "padding_side": "left" if config.pad_left else "right",
    }
