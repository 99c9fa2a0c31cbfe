"""Rename our towers' weights to those of a VisionTextDualEncoder, which transformers 4 and 5 load.

The names are those of transformers 4, which 5 reads too: there the image tower is inside another module.
"""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from clipita.convert.layouts.bert_towers import BERT_POOLER, bert_names
from clipita.convert.layouts.image_towers import clip_vision_names, siglip_vision_names, vit_names
from clipita.convert.layouts.leaves import Names, prefixed
from clipita.convert.layouts.settings import ACTIVATIONS
from clipita.convert.layouts.text_towers import clip_text_names
from clipita.errors import CheckpointError
from clipita.system.arrays import Array
from clipita.towers.config import BertConfig, DualConfig, ProjectionConfig, TextConfig, TransformerConfig, VitConfig

_PROJECTIONS = {
    "visual_projection.weight": "image_projection.linear.kernel",
    "text_projection.weight": "text_projection.linear.kernel",
}
# Leaves that transformers keeps with additional axes.
_SHAPES = {
    "embeddings.class_embedding": (-1,),
    "embeddings.cls_token": (1, 1, -1),
    "head.probe": (1, 1, -1),
}


def to_vision_text_dual_encoder(
    config: DualConfig, table: Mapping[str, Array], logit_scale: float
) -> tuple[dict[str, Any], dict[str, Array]]:
    """Make the contents of `config.json`, and the tensors of `model.safetensors`.

    Args:
        config: The architecture. A RoBERTa is written as a BERT, without the positions of padding.
        table: The weights by our names, in our layout.
        logit_scale: The multiplier of cosines; its logarithm is stored.

    Raises:
        CheckpointError: VisionTextDualEncoder cannot hold this model: it takes towers with a pooled output of their
            own, and projections that are linear and without bias.
    """
    text, text_names = _text(config.text)
    vision, vision_names, prefix = _vision(config)
    for half, projection in (("image", config.image_projection), ("text", config.text_projection)):
        if projection not in (ProjectionConfig(), ProjectionConfig(linear=False)):
            raise _impossible(
                f"its {half} projection is {projection}, and only linear ones without bias can be written"
            )
    names = {**prefixed("text_model.", "text.", text_names), **prefixed(prefix, "image.", vision_names), **_PROJECTIONS}
    identity = {"image_projection.linear.kernel": np.eye(config.embed_dim, dtype=np.float32)}
    identity["text_projection.linear.kernel"] = identity["image_projection.linear.kernel"]
    weights = {**identity, **table}
    tensors = {theirs: _their_layout(theirs, ours, weights) for theirs, ours in names.items()}
    tensors["logit_scale"] = np.array(math.log(logit_scale), np.float32)
    return {
        "architectures": ["VisionTextDualEncoderModel"],
        "model_type": "vision-text-dual-encoder",
        "projection_dim": config.embed_dim,
        "logit_scale_init_value": math.log(logit_scale),
        "text_config": text,
        "vision_config": {**vision, "image_size": config.preprocessing.image_size, "num_channels": 3},
    }, tensors


def _text(config: TextConfig) -> tuple[dict[str, Any], Names]:
    sizes = {"vocab_size": config.vocabulary, "max_position_embeddings": config.positions, **_sizes(config)}
    if isinstance(config, BertConfig):
        if config.pooling != "pooler" or not config.token_types:
            raise _impossible("its text tower pools in another way than by BERT's pooler")
        types = {"type_vocab_size": config.token_types, "position_embedding_type": "absolute"}
        return {"model_type": "bert", **sizes, **types}, bert_names(config.layers) | BERT_POOLER
    if config.attention != "causal" or config.pooling not in ("eos", "highest"):
        raise _impossible("its text tower is neither BERT's nor CLIP's")
    eos = 2 if config.eos_token is None else config.eos_token  # 2 means the highest id, see `text_towers`
    return {"model_type": "clip_text_model", **sizes, "eos_token_id": eos}, clip_text_names(config.layers)


def _vision(config: DualConfig) -> tuple[dict[str, Any], Names, str]:
    image = config.image
    if not isinstance(image, VitConfig):
        raise _impossible("its image tower is no vision transformer")
    sizes = {"patch_size": image.patch, **_sizes(image)}
    match (image.patch_bias, image.class_token, image.embedding_norm, image.pooling):
        case (False, True, True, "cls"):
            return {"model_type": "clip_vision_model", **sizes}, clip_vision_names(image.layers), _NESTED
        case (True, False, False, "map"):
            return {"model_type": "siglip_vision_model", **sizes}, siglip_vision_names(image.layers), _NESTED
        case (True, True, False, "pooler"):
            return {"model_type": "vit", "qkv_bias": True, **sizes}, vit_names(image.layers), "vision_model."
        case _:
            raise _impossible("its image tower is none of CLIP's, SigLIP's and ViT's")


_NESTED = "vision_model.vision_model."


def _sizes(config: TransformerConfig) -> dict[str, Any]:
    (activation, *_) = (theirs for theirs, ours in ACTIVATIONS.items() if ours == config.activation)
    return {
        "hidden_size": config.width,
        "num_hidden_layers": config.layers,
        "num_attention_heads": config.heads,
        "intermediate_size": config.mlp_width,
        "hidden_act": activation,
        "layer_norm_eps": config.epsilon,
    }


def _their_layout(theirs: str, ours: str, table: Mapping[str, Array]) -> Array:
    module, _, leaf = ours.rpartition(".")
    parent, _, together = module.rpartition(".")
    parts = [table[".".join(filter(None, (parent, name, leaf)))] for name in together.split("+")]
    if leaf == "kernel" and parts[0].ndim == 2:
        parts = [part.T for part in parts]
    values = np.concatenate(parts) if len(parts) > 1 else parts[0]
    for name, shape in _SHAPES.items():
        if theirs.endswith(name):
            values = values.reshape(shape)
    if theirs.endswith("embeddings.position_embeddings"):  # ViT's; BERT's positions are a module with a weight
        values = values[None]
    return np.ascontiguousarray(values, np.float32)


def _impossible(reason: str) -> CheckpointError:
    return CheckpointError(f"this model cannot be written as a VisionTextDualEncoder: {reason}.")
