"""Read the towers that OpenCLIP takes from other libraries: timm's image towers, and transformers' text towers.

Source: open_clip 3.3, `timm_model.py`, `hf_model.py`; timm 1.0, `vision_transformer.py`, `attention_pool.py`.
"""

import re
from collections.abc import Mapping
from typing import Any

from clipita.convert.layouts.bert_towers import TextTower
from clipita.convert.layouts.dual import LINEAR, ProjectionLeaves
from clipita.convert.layouts.image_towers import ImageTower
from clipita.convert.layouts.leaves import linear, norm, repeated
from clipita.convert.layouts.settings import Settings
from clipita.convert.layouts.text_towers import text_tower
from clipita.errors import CheckpointError
from clipita.system.arrays import Array
from clipita.towers.config import NO_PROJECTION, ProjectionConfig, VitConfig

_TIMM = {
    "patch_embed.proj.weight": "patch.kernel",
    "patch_embed.proj.bias": "patch.bias",
    "pos_embed": "position.embedding",
    **norm({"norm": "norm", "attn_pool.norm": "head.mlp_norm"}),
    "attn_pool.latent": "head.probe.embedding",
    **linear({
        "attn_pool.q": "head.query",
        "attn_pool.kv": "head.key+value",
        "attn_pool.proj": "head.output",
        "attn_pool.mlp.fc1": "head.mlp_in",
        "attn_pool.mlp.fc2": "head.mlp_out",
    }),
}  # fmt: skip
_TIMM_LAYER = {
    **linear({"attn.qkv": "query+key+value", "attn.proj": "output", "mlp.fc1": "mlp_in", "mlp.fc2": "mlp_out"}),
    **norm({"norm1": "attention_norm", "norm2": "mlp_norm"}),
}

# The leaves show the sizes of a tower. The other settings are here, by the last part of `hf_model_name`.
_XLM_R = {"model_type": "xlm-roberta", "layer_norm_eps": 1e-5, "pad_token_id": 1}
_NLLB = {"model_type": "m2m_100", "encoder_attention_heads": 16, "scale_embedding": True, "pad_token_id": 1}
_TEXT_MODELS: dict[str, dict[str, Any]] = {
    "xlm-roberta-base": {**_XLM_R, "num_attention_heads": 12},
    "xlm-roberta-large": {**_XLM_R, "num_attention_heads": 16},
    "roberta-base": {**_XLM_R, "model_type": "roberta", "num_attention_heads": 12},
    "nllb-200-distilled-600M": _NLLB,
    "nllb-200-distilled-1.3B": _NLLB,
}
_TIMM_NAME = re.compile(r"vit_(base|large|so400m|giantopt)_patch\d+_siglip_(?:gap_)?\d+")
_TIMM_HEADS = {"base": 12, "large": 16, "so400m": 16, "giantopt": 16}
# SigLIP's own code uses GELU in the tanh form everywhere; timm uses the exact form except in these.
_TIMM_TANH = re.compile(r"vit_(base_patch32|large_patch16_siglip_512|so400m_patch16|giantopt)")


def timm_tower(vision: Settings, leaves: Mapping[str, Array]) -> tuple[ImageTower, ProjectionLeaves]:
    """Read timm's SigLIP ViT, and its projection."""
    name = vision.text("timm_model_name")
    match = _TIMM_NAME.fullmatch(name)
    if match is None:
        raise vision.error("timm_model_name", "one of timm's SigLIP towers, e.g. 'vit_base_patch16_siglip_384'")
    vision.require(timm_pool="map")
    prefix = "visual.trunk."
    width, _, patch, _ = _shape(leaves, f"{prefix}patch_embed.proj.weight", 4)
    config = VitConfig(
        patch=patch,
        width=width,
        layers=_count(leaves, f"{prefix}blocks."),
        heads=_TIMM_HEADS[match[1]],
        mlp_width=_shape(leaves, f"{prefix}blocks.0.mlp.fc1.weight", 2)[0],
        activation="gelu_tanh" if _TIMM_TANH.match(name) else "gelu",
        epsilon=1e-6,
        patch_bias=True,
        class_token=False,
        embedding_norm=False,
        pooling="map",
    )
    tower = ImageTower(config, vision.side("image_size"), _TIMM | repeated("blocks.{}.", config.layers, _TIMM_LAYER))
    if vision.one_of("timm_proj", "linear", "none") == "none":
        return tower, ProjectionLeaves(NO_PROJECTION, {})
    bias = vision.flag("timm_proj_bias", False)
    names = {"visual.head.proj.weight": "linear.kernel"} | ({"visual.head.proj.bias": "linear.bias"} if bias else {})
    return tower, ProjectionLeaves(ProjectionConfig(bias=bias), names)


def hf_text_tower(text: Settings, leaves: Mapping[str, Array], embed_dim: int) -> tuple[TextTower, ProjectionLeaves]:
    """Read a text tower of the transformers library, and the pooling and projection that open_clip adds."""
    name = text.text("hf_model_name").rpartition("/")[2]
    if name not in _TEXT_MODELS:
        raise text.error("hf_model_name", f"one of {', '.join(_TEXT_MODELS)}")
    known, prefix = _TEXT_MODELS[name], "text.transformer."
    poolers = {"mean_pooler": "mean", "cls_pooler": "pooler", "cls_last_hidden_state_pooler": "cls"}
    pooler = text.one_of("hf_pooler_type", *poolers)
    if known["model_type"] == "m2m_100":
        if pooler == "mean_pooler":
            raise text.error("hf_pooler_type", "'cls_pooler' for this text tower")
        sizes = {
            "vocab_size": _shape(leaves, f"{prefix}embed_tokens.weight", 2)[0],
            "d_model": _shape(leaves, f"{prefix}embed_tokens.weight", 2)[1],
            "encoder_layers": _count(leaves, f"{prefix}layers."),
            "encoder_ffn_dim": _shape(leaves, f"{prefix}layers.0.fc1.weight", 2)[0],
        }
        width = sizes["d_model"]
    else:
        embeddings, layer = f"{prefix}embeddings.", f"{prefix}encoder.layer."
        sizes = {
            "vocab_size": _shape(leaves, f"{embeddings}word_embeddings.weight", 2)[0],
            "hidden_size": _shape(leaves, f"{embeddings}word_embeddings.weight", 2)[1],
            "max_position_embeddings": _shape(leaves, f"{embeddings}position_embeddings.weight", 2)[0],
            "type_vocab_size": _shape(leaves, f"{embeddings}token_type_embeddings.weight", 2)[0],
            "num_hidden_layers": _count(leaves, layer),
            "intermediate_size": _shape(leaves, f"{layer}0.intermediate.dense.weight", 2)[0],
        }
        width = sizes["hidden_size"]
    tower = text_tower(Settings({**known, **sizes}, f"{text.where}: {name}"), pooling=poolers[pooler])
    if text.one_of("hf_proj_type", "mlp", "linear", "") == "mlp":
        hidden = (width + embed_dim) // 2
        names = {"text.proj.0.weight": "mlp_in.kernel", "text.proj.2.weight": "mlp_out.kernel"}
        return tower, ProjectionLeaves(ProjectionConfig(hidden, linear=False), names)
    if "text.proj.weight" not in leaves and width == embed_dim:
        return tower, ProjectionLeaves(NO_PROJECTION, {})
    return tower, ProjectionLeaves(LINEAR, {"text.proj.weight": "linear.kernel"})


def _shape(leaves: Mapping[str, Array], name: str, rank: int) -> tuple[int, ...]:
    if name not in leaves or leaves[name].ndim != rank:
        found = leaves[name].shape if name in leaves else "missing"
        raise CheckpointError(f"the weight {name!r} must be there and have {rank} axes, but it is {found}.")
    return leaves[name].shape


def _count(leaves: Mapping[str, Array], prefix: str) -> int:
    """Count the layers below `prefix`."""
    numbers = {name[len(prefix) :].partition(".")[0] for name in leaves if name.startswith(prefix)}
    return sum(number.isdecimal() for number in numbers)
