"""Read VisionTextDualEncoder, as transformers 4 and 5 write it, and hybrid-clip, which CLIP-Italian was trained with.

hybrid-clip is the Flax script that VisionTextDualEncoder came from, and has the same modules under the same names.
Source: huggingface/transformers, `examples/research_projects/jax-projects/hybrid_clip`.
"""

from pathlib import Path

from clipita.convert.layouts.dual import (
    LINEAR,
    DualWeights,
    ProjectionLeaves,
    TextRules,
    assemble,
    clip_preprocessing,
    half_preprocessing,
)
from clipita.convert.layouts.image_towers import image_tower
from clipita.convert.layouts.leaves import exp_scale, scalar, torch_names
from clipita.convert.layouts.preprocessor_config import preprocessing_of
from clipita.convert.layouts.settings import Settings
from clipita.convert.layouts.text_towers import text_tower
from clipita.convert.readers.weights import read_weights
from clipita.towers.config import BertConfig

# CLIP-Italian multiplied its cosines by the constant 20 in training (`ones * 20` under stop_gradient) and left the leaf
# at its initial 1.0, which transformers then takes for the logarithm of a scale: e times the cosine. A leaf of exactly
# 1.0 in a BERT beside CLIP's ViT is therefore read as 20. A scale that was learned never comes back to its first value
# to the last bit, and transformers' own is ln(1 / 0.07) = 2.6592.
# Source: clip-italian/clip-italian, hybrid_clip/modeling_hybrid_clip.py; transformers' integration test expects logits
# of 1.2284727 and 0.3104122, which are e times the cosines 0.45193 and 0.11419.
CLIP_ITALIAN_LEAF = 1.0
CLIP_ITALIAN_SCALE = 20.0


def read_vision_text(folder: Path) -> DualWeights:
    """Read the folder of a VisionTextDualEncoder or a hybrid-clip.

    Raises:
        CheckpointError: A file or a weight is not as expected.
    """
    settings = Settings.read(folder / "config.json").with_defaults({"projection_dim": 512})
    text = text_tower(settings.part("text_config").with_defaults({"model_type": "bert"}))
    vision = settings.part("vision_config").with_defaults({"model_type": "vit"})
    if "vision_config" in vision:  # the configuration of a whole CLIP
        vision = vision.part("vision_config").with_defaults({"model_type": "clip_vision_model"})
    image = image_tower(vision)

    leaves = dict(read_weights(folder))
    if any("/" in name for name in leaves):
        leaves = torch_names(leaves)
    leaf = scalar(leaves, "logit_scale")
    nested = "vision_model.vision_model."  # the prefix in transformers 4 and Flax for CLIP and SigLIP
    image_prefix = nested if any(name.startswith(nested) for name in leaves) else "vision_model."
    if image.config.embedding_norm:
        default = clip_preprocessing(image.image_size)
    else:
        default = half_preprocessing(image.image_size, "bilinear" if image.config.class_token else "bicubic")
    config, weights = assemble(
        leaves,
        text,
        image,
        text_prefix="text_model.",
        image_prefix=image_prefix,
        text_projection=ProjectionLeaves(LINEAR, {"text_projection.weight": "linear.kernel"}),
        image_projection=ProjectionLeaves(LINEAR, {"visual_projection.weight": "linear.kernel"}),
        embed_dim=settings.count("projection_dim"),
        preprocessing=preprocessing_of(folder, default=default),
    )
    is_italian = isinstance(config.text, BertConfig) and image.config.embedding_norm and leaf == CLIP_ITALIAN_LEAF
    scale = CLIP_ITALIAN_SCALE if is_italian else exp_scale(leaf)
    return DualWeights(config, weights, TextRules(folder, text.config.positions), scale)
