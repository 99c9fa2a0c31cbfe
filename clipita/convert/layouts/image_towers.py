"""Read image towers of the transformers library: their sizes from configurations, and the names of their leaves.

Source: transformers 4 and 5, `models/{clip,siglip,vit}`. The defaults are theirs, as for the text towers.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from clipita.convert.layouts.leaves import Names, linear, norm, repeated
from clipita.convert.layouts.settings import Settings
from clipita.convert.layouts.text_towers import CLIP_LAYER, transformer_size
from clipita.towers.config import VitConfig


class ImageTower(NamedTuple):
    """An image tower of a checkpoint: its size, its leaves' names -> ours, and the side of the images that it reads."""

    config: VitConfig
    image_size: int
    names: Names
    harmless: tuple[str, ...] = ()


def image_tower(settings: Settings) -> ImageTower:
    """Read the image tower that `settings` describe.

    Raises:
        CheckpointError: The architecture or a setting of it is not known.
    """
    kind = settings.text("model_type")
    if kind in ("clip", "clip_vision_model"):
        return _clip_vision(settings)
    if kind in ("siglip", "siglip_vision_model"):
        return _siglip_vision(settings)
    if kind == "vit":
        return _vit(settings)
    raise settings.error("model_type", "one of clip_vision_model, siglip_vision_model, vit for an image tower")


_VISION_DEFAULTS: Mapping[str, Any] = {
    "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072,
    "image_size": 224, "num_channels": 3,
}  # fmt: skip
_CLIP_VISION_DEFAULTS = {**_VISION_DEFAULTS, "patch_size": 32, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu"}
_SIGLIP_VISION_DEFAULTS = {
    **_VISION_DEFAULTS, "patch_size": 16, "layer_norm_eps": 1e-6, "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
_VIT_DEFAULTS = {**_VISION_DEFAULTS, "patch_size": 16, "layer_norm_eps": 1e-12, "hidden_act": "gelu"}
_CLIP_VISION = {
    "embeddings.class_embedding": "class_token.embedding",
    "embeddings.patch_embedding.weight": "patch.kernel",
    "embeddings.position_embedding.weight": "position.embedding",
    **norm({"pre_layrnorm": "embedding_norm", "post_layernorm": "norm"}),  # spelled so in the library
}
_SIGLIP_VISION = {
    "embeddings.patch_embedding.weight": "patch.kernel",
    "embeddings.patch_embedding.bias": "patch.bias",
    "embeddings.position_embedding.weight": "position.embedding",
    **norm({"post_layernorm": "norm", "head.layernorm": "head.mlp_norm"}),
    "head.probe": "head.probe.embedding",
    "head.attention.in_proj_weight": "head.query+key+value.kernel",
    "head.attention.in_proj_bias": "head.query+key+value.bias",
    **linear({
        "head.attention.out_proj": "head.output",
        "head.mlp.fc1": "head.mlp_in",
        "head.mlp.fc2": "head.mlp_out",
    }),
}  # fmt: skip
_VIT = {
    "embeddings.cls_token": "class_token.embedding",
    "embeddings.position_embeddings": "position.embedding",
    "embeddings.patch_embeddings.projection.weight": "patch.kernel",
    "embeddings.patch_embeddings.projection.bias": "patch.bias",
    **norm({"layernorm": "norm"}),
    **linear({"pooler.dense": "pooler"}),
}
_VIT_LAYER = {
    **linear({
        "attention.attention.query": "query",
        "attention.attention.key": "key",
        "attention.attention.value": "value",
        "attention.output.dense": "output",
        "intermediate.dense": "mlp_in",
        "output.dense": "mlp_out",
    }),
    **norm({"layernorm_before": "attention_norm", "layernorm_after": "mlp_norm"}),
}  # fmt: skip


def clip_vision_names(layers: int) -> Names:
    """Return the names of the leaves of CLIP's image tower."""
    return _CLIP_VISION | repeated("encoder.layers.{}.", layers, CLIP_LAYER)


def siglip_vision_names(layers: int) -> Names:
    """Return the names of the leaves of SigLIP's image tower."""
    return _SIGLIP_VISION | repeated("encoder.layers.{}.", layers, CLIP_LAYER)


def vit_names(layers: int) -> Names:
    """Return the names of the leaves of a plain ViT."""
    return _VIT | repeated("encoder.layer.{}.", layers, _VIT_LAYER)


def _clip_vision(settings: Settings) -> ImageTower:
    settings = settings.with_defaults(_CLIP_VISION_DEFAULTS)
    config = _vit_config(settings, patch_bias=False, class_token=True, embedding_norm=True, pooling="cls")
    return ImageTower(
        config, settings.side("image_size"), clip_vision_names(config.layers), ("embeddings.position_ids",)
    )


def _siglip_vision(settings: Settings) -> ImageTower:
    settings = settings.with_defaults(_SIGLIP_VISION_DEFAULTS)
    settings.require(vision_use_head=True)
    config = _vit_config(settings, patch_bias=True, class_token=False, embedding_norm=False, pooling="map")
    return ImageTower(
        config, settings.side("image_size"), siglip_vision_names(config.layers), ("embeddings.position_ids",)
    )


def _vit(settings: Settings) -> ImageTower:
    settings = settings.with_defaults(_VIT_DEFAULTS)
    settings.require(qkv_bias=True, pooler_act="tanh", pooler_output_size=settings.count("hidden_size"))
    config = _vit_config(settings, patch_bias=True, class_token=True, embedding_norm=False, pooling="pooler")
    return ImageTower(config, settings.side("image_size"), vit_names(config.layers))


def _vit_config(settings: Settings, **fields: Any) -> VitConfig:
    settings.require(num_channels=3)
    return VitConfig(patch=settings.side("patch_size"), **transformer_size(settings), **fields)
