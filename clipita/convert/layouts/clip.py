"""Read CLIP, SigLIP and SigLIP2 of fixed resolution, as the transformers library writes them."""

from pathlib import Path

from clipita.convert.folder.files import json_in
from clipita.convert.layouts.bert_towers import TextTower
from clipita.convert.layouts.dual import (
    LINEAR,
    DualWeights,
    ProjectionLeaves,
    TextRules,
    assemble,
    clip_preprocessing,
    half_preprocessing,
)
from clipita.convert.layouts.image_towers import ImageTower, image_tower
from clipita.convert.layouts.leaves import exp_scale, scalar, torch_names
from clipita.convert.layouts.preprocessor_config import preprocessing_of
from clipita.convert.layouts.settings import Settings
from clipita.convert.layouts.text_towers import text_tower
from clipita.convert.readers.weights import read_weights
from clipita.system.arrays import Array
from clipita.towers.config import NO_PROJECTION, ProjectionConfig


def read_clip(folder: Path) -> DualWeights:
    """Read the folder of a CLIP.

    Raises:
        CheckpointError: A file or a weight is not as expected.
    """
    text, image, embed_dim = clip_towers(folder)
    leaves = clip_leaves(folder)
    scale = exp_scale(scalar(leaves, "logit_scale"))
    config, weights = assemble(
        leaves,
        text,
        image,
        text_prefix="text_model.",
        image_prefix="vision_model.",
        text_projection=ProjectionLeaves(LINEAR, {"text_projection.weight": "linear.kernel"}),
        image_projection=ProjectionLeaves(LINEAR, {"visual_projection.weight": "linear.kernel"}),
        embed_dim=embed_dim,
        preprocessing=preprocessing_of(folder, default=clip_preprocessing(image.image_size)),
    )
    return DualWeights(config, weights, TextRules(folder, text.config.positions), scale)


def read_siglip(folder: Path) -> DualWeights:
    """Read the folder of a SigLIP or SigLIP2.

    Raises:
        CheckpointError: A file or a weight is not as expected.
    """
    settings = Settings.read(folder / "config.json")
    text = text_tower(_part(settings, "text_config", "siglip_text_model"))
    image = image_tower(_part(settings, "vision_config", "siglip_vision_model"))
    leaves = clip_leaves(folder)
    scale, bias = exp_scale(scalar(leaves, "logit_scale")), scalar(leaves, "logit_bias")
    head = {"text_model.head.weight": "linear.kernel", "text_model.head.bias": "linear.bias"}
    config, weights = assemble(
        leaves,
        text,
        image,
        text_prefix="text_model.",
        image_prefix="vision_model.",
        text_projection=ProjectionLeaves(ProjectionConfig(bias=True), head),
        image_projection=ProjectionLeaves(NO_PROJECTION, {}),
        embed_dim=image.config.width,
        preprocessing=preprocessing_of(folder, default=half_preprocessing(image.image_size, "bicubic")),
    )
    rules = TextRules(folder, text.config.positions, fixed_length=True, lowercase=is_lower_case(folder))
    return DualWeights(config, weights, rules, scale, bias)


def is_lower_case(folder: Path) -> bool:
    """Tell a SigLIP 2 from a SigLIP, by Gemma's tokenizer: it was trained on lower case, which its files do not say.

    Source: arXiv:2502.14786, 2.1.
    """
    return str((json_in(folder, "tokenizer_config.json") or {}).get("tokenizer_class", "")).startswith("Gemma")


def clip_towers(folder: Path) -> tuple[TextTower, ImageTower, int]:
    """Read both towers of a CLIP from its `config.json`, and the width of the embeddings."""
    settings = Settings.read(folder / "config.json").with_defaults({"projection_dim": 512})
    text = text_tower(_part(settings, "text_config", "clip_text_model"))
    image = image_tower(_part(settings, "vision_config", "clip_vision_model"))
    return text, image, settings.count("projection_dim")


def clip_leaves(folder: Path) -> dict[str, Array]:
    """Return the leaves of a folder by PyTorch's names."""
    leaves = dict(read_weights(folder))
    return torch_names(leaves) if any("/" in name for name in leaves) else leaves


def _part(settings: Settings, key: str, kind: str) -> Settings:
    """Return the configuration of one tower. Early files hold changed settings twice; the second copy counts."""
    return settings.part(key).updated(settings.part(f"{key}_dict")).with_defaults({"model_type": kind})
