"""Towers of the transformers library: what their configurations say, and what their leaves are called.

Source: transformers 4 and 5, `models/{bert,roberta,xlm_roberta,distilbert,m2m_100,clip,siglip,vit}`. The defaults are
theirs: a configuration may leave out what does not differ from them.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from clipita.convert.layouts.leaves import Names, linear, norm, repeated
from clipita.convert.layouts.settings import Settings
from clipita.errors import CheckpointError
from clipita.towers.config import BertConfig, ClipTextConfig, TextConfig, VitConfig


class TextTower(NamedTuple):
    """A text tower's size and leaves."""

    config: TextConfig
    names: Names  # relative to both towers' prefixes
    harmless: tuple[str, ...] = ()
    first_position: int = 0  # rows of the position table before it are for padding


class ImageTower(NamedTuple):
    """An image tower's size and leaves, and the images it is for."""

    config: VitConfig
    image_size: int
    names: Names
    harmless: tuple[str, ...] = ()


def text_tower(settings: Settings, *, pooling: str | None = None) -> TextTower:
    """The text tower that `settings` describe.

    Args:
        settings: with "model_type".
        pooling: for BERT's family: "mean", "cls" or "pooler".

    Raises:
        CheckpointError: an architecture or a setting of it is not known.
    """
    kind = settings.str("model_type")
    if kind in ("bert", *_ROBERTAS):
        return _bert(settings, kind, pooling)
    if kind == "distilbert":
        return _distilbert(settings, pooling)
    if kind in ("m2m_100", "nllb"):
        return _m2m100(settings)
    if kind in ("clip", "clip_text_model"):
        return _clip_text(settings)
    if kind in ("siglip", "siglip_text_model"):
        return _siglip_text(settings)
    known = ["bert", *_ROBERTAS, "distilbert", "m2m_100", "clip_text_model", "siglip_text_model"]
    raise settings.error("model_type", f"one of {', '.join(known)} for a text tower")


def image_tower(settings: Settings) -> ImageTower:
    """The image tower that `settings` describe. Raises CheckpointError as `text_tower` does."""
    kind = settings.str("model_type")
    if kind in ("clip", "clip_vision_model"):
        return _clip_vision(settings)
    if kind in ("siglip", "siglip_vision_model"):
        return _siglip_vision(settings)
    if kind == "vit":
        return _vit(settings)
    raise settings.error("model_type", "one of clip_vision_model, siglip_vision_model, vit for an image tower")


_ROBERTAS = ("roberta", "xlm-roberta", "camembert")
_BERT_DEFAULTS = {
    "vocab_size": 30522, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 512, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
    "hidden_act": "gelu", "pad_token_id": 0,
}  # fmt: skip
_BERT = {
    "embeddings.word_embeddings.weight": "word.embedding",
    "embeddings.position_embeddings.weight": "position.embedding",
    "embeddings.token_type_embeddings.weight": "token_type.embedding",
    **norm({"embeddings.LayerNorm": "norm"}),
}
_BERT_LAYER = {
    **linear({
        "attention.self.query": "query",
        "attention.self.key": "key",
        "attention.self.value": "value",
        "attention.output.dense": "output",
        "intermediate.dense": "mlp_in",
        "output.dense": "mlp_out",
    }),
    **norm({"attention.output.LayerNorm": "attention_norm", "output.LayerNorm": "mlp_norm"}),
}  # fmt: skip
BERT_POOLER = linear({"pooler.dense": "pooler"})


def bert_names(layers: int) -> Names:
    """Of a BERT without its pooler."""
    return _BERT | repeated("encoder.layer.{}.", layers, _BERT_LAYER)


def _bert(settings: Settings, kind: str, pooling: str | None) -> TextTower:
    roberta = {"pad_token_id": 1, "max_position_embeddings": 514} if kind in _ROBERTAS else {}
    settings = settings.with_defaults(_BERT_DEFAULTS | roberta)
    settings.require(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    # RoBERTa counts positions from the padding token's id + 1 (`create_position_ids_from_input_ids`).
    first = settings.int("pad_token_id") + 1 if kind in _ROBERTAS else 0
    config = BertConfig(
        vocabulary=settings.int("vocab_size"),
        width=settings.int("hidden_size"),
        layers=settings.int("num_hidden_layers"),
        heads=settings.int("num_attention_heads"),
        mlp_width=settings.int("intermediate_size"),
        positions=settings.int("max_position_embeddings") - first,
        token_types=settings.int("type_vocab_size"),
        epsilon=settings.float("layer_norm_eps"),
        pooling=_bert_pooling(settings, pooling or "pooler"),
        activation=settings.activation("hidden_act"),
    )
    names = bert_names(config.layers) | (BERT_POOLER if config.pooling == "pooler" else {})
    # Buffers that count 0, 1, 2 ... or hold zeros; transformers stopped saving them at 4.31.
    return TextTower(config, names, ("embeddings.position_ids", "embeddings.token_type_ids"), first)


_DISTILBERT_DEFAULTS = {
    "vocab_size": 30522, "dim": 768, "n_layers": 6, "n_heads": 12, "hidden_dim": 3072,
    "max_position_embeddings": 512, "activation": "gelu",
}  # fmt: skip
_DISTILBERT = {name: ours for name, ours in _BERT.items() if "token_type" not in name}
_DISTILBERT_LAYER = {
    **linear({
        "attention.q_lin": "query",
        "attention.k_lin": "key",
        "attention.v_lin": "value",
        "attention.out_lin": "output",
        "ffn.lin1": "mlp_in",
        "ffn.lin2": "mlp_out",
    }),
    **norm({"sa_layer_norm": "attention_norm", "output_layer_norm": "mlp_norm"}),
}  # fmt: skip


def _distilbert(settings: Settings, pooling: str | None) -> TextTower:
    if pooling not in ("mean", "cls"):
        raise CheckpointError(
            f"{settings.where}: a DistilBERT has no pooled output, and its layout does not say how to pool it. "
            "transformers cannot run such a checkpoint either."
        )
    settings = settings.with_defaults(_DISTILBERT_DEFAULTS)
    config = BertConfig(
        vocabulary=settings.int("vocab_size"),
        width=settings.int("dim"),
        layers=settings.int("n_layers"),
        heads=settings.int("n_heads"),
        mlp_width=settings.int("hidden_dim"),
        positions=settings.int("max_position_embeddings"),
        token_types=0,
        pooling=_bert_pooling(settings, pooling),
        activation=settings.activation("activation"),
    )
    names = _DISTILBERT | repeated("transformer.layer.{}.", config.layers, _DISTILBERT_LAYER)
    return TextTower(config, names, ("embeddings.position_ids",))


def _bert_pooling(settings: Settings, pooling: str) -> Any:
    if pooling not in ("mean", "cls", "pooler"):
        raise CheckpointError(f"{settings.where}: pooling {pooling!r} is not known; 'mean', 'cls' and 'pooler' are.")
    return pooling


_M2M100_DEFAULTS = {
    "vocab_size": 128112, "d_model": 1024, "encoder_layers": 12, "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096, "max_position_embeddings": 1024, "activation_function": "relu",
}  # fmt: skip
_M2M100_LAYER = {
    **linear({
        "self_attn.q_proj": "query",
        "self_attn.k_proj": "key",
        "self_attn.v_proj": "value",
        "self_attn.out_proj": "output",
        "fc1": "mlp_in",
        "fc2": "mlp_out",
    }),
    **norm({"self_attn_layer_norm": "attention_norm", "final_layer_norm": "mlp_norm"}),
}  # fmt: skip


def _m2m100(settings: Settings) -> TextTower:
    """The encoder alone, read at its first token. Its position table is computed: see `open_clip.sinusoids`."""
    settings = settings.with_defaults(_M2M100_DEFAULTS)
    settings.require(scale_embedding=True)
    config = ClipTextConfig(
        vocabulary=settings.int("vocab_size"),
        width=settings.int("d_model"),
        layers=settings.int("encoder_layers"),
        heads=settings.int("encoder_attention_heads"),
        mlp_width=settings.int("encoder_ffn_dim"),
        positions=settings.int("max_position_embeddings"),
        activation=settings.activation("activation_function"),
        epsilon=1e-5,
        attention="masked",
        pooling="cls",
    )
    names = {"embed_tokens.weight": "word.embedding", **norm({"layer_norm": "norm"})}
    names |= repeated("layers.{}.", config.layers, _M2M100_LAYER)
    # The table of sinusoids, which transformers computes again at every load.
    return TextTower(config, names, ("embed_positions.weights",))


_CLIP_LAYER = {
    **linear({
        "self_attn.q_proj": "query",
        "self_attn.k_proj": "key",
        "self_attn.v_proj": "value",
        "self_attn.out_proj": "output",
        "mlp.fc1": "mlp_in",
        "mlp.fc2": "mlp_out",
    }),
    **norm({"layer_norm1": "attention_norm", "layer_norm2": "mlp_norm"}),
}  # fmt: skip
_CLIP_TEXT_DEFAULTS = {
    "vocab_size": 49408, "hidden_size": 512, "num_hidden_layers": 12, "num_attention_heads": 8,
    "intermediate_size": 2048, "max_position_embeddings": 77, "layer_norm_eps": 1e-5, "hidden_act": "quick_gelu",
    "eos_token_id": 49407,
}  # fmt: skip
_SIGLIP_TEXT_DEFAULTS = {
    "vocab_size": 32000, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
    "intermediate_size": 3072, "max_position_embeddings": 64, "layer_norm_eps": 1e-6,
    "hidden_act": "gelu_pytorch_tanh",
}  # fmt: skip
_CLIP_TEXT = {
    "embeddings.token_embedding.weight": "word.embedding",
    "embeddings.position_embedding.weight": "position.embedding",
    **norm({"final_layer_norm": "norm"}),
}


def _clip_text(settings: Settings) -> TextTower:
    settings = settings.with_defaults(_CLIP_TEXT_DEFAULTS)
    eos = settings.int("eos_token_id")
    # Files from before transformers 4.31 say 2, whatever the tokenizer's end is; 2 therefore means the highest id.
    fields = _pre_norm_fields(settings)
    config = ClipTextConfig(
        **fields,
        attention="causal",
        pooling="highest" if eos == 2 else "eos",
        eos_token=None if eos == 2 else eos,
    )
    names = _CLIP_TEXT | repeated("encoder.layers.{}.", config.layers, _CLIP_LAYER)
    return TextTower(config, names, ("embeddings.position_ids",))


def _siglip_text(settings: Settings) -> TextTower:
    settings = settings.with_defaults(_SIGLIP_TEXT_DEFAULTS)
    config = ClipTextConfig(**_pre_norm_fields(settings), attention="full", pooling="last")
    names = _CLIP_TEXT | repeated("encoder.layers.{}.", config.layers, _CLIP_LAYER)
    return TextTower(config, names, ("embeddings.position_ids",))


def _pre_norm_fields(settings: Settings) -> dict[str, Any]:
    return {
        "vocabulary": settings.int("vocab_size"),
        "positions": settings.int("max_position_embeddings"),
        **_size(settings),
    }


def _size(settings: Settings) -> dict[str, Any]:
    return {
        "width": settings.int("hidden_size"),
        "layers": settings.int("num_hidden_layers"),
        "heads": settings.int("num_attention_heads"),
        "mlp_width": settings.int("intermediate_size"),
        "activation": settings.activation("hidden_act"),
        "epsilon": settings.float("layer_norm_eps"),
    }


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
    **norm({"pre_layrnorm": "embedding_norm", "post_layernorm": "norm"}),  # spelt so in the library
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
    """Of CLIP's image tower."""
    return _CLIP_VISION | repeated("encoder.layers.{}.", layers, _CLIP_LAYER)


def siglip_vision_names(layers: int) -> Names:
    """Of SigLIP's image tower."""
    return _SIGLIP_VISION | repeated("encoder.layers.{}.", layers, _CLIP_LAYER)


def vit_names(layers: int) -> Names:
    """Of a plain ViT."""
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
    settings.require(qkv_bias=True, pooler_act="tanh", pooler_output_size=settings.int("hidden_size"))
    config = _vit_config(settings, patch_bias=True, class_token=True, embedding_norm=False, pooling="pooler")
    return ImageTower(config, settings.side("image_size"), vit_names(config.layers))


def _vit_config(settings: Settings, **fields: Any) -> VitConfig:
    settings.require(num_channels=3)
    return VitConfig(patch=settings.side("patch_size"), **_size(settings), **fields)
