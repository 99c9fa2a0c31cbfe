"""Read text towers of the transformers library: their sizes from configurations, and the names of their leaves.

BERT's family is in a module of its own. Source: transformers 4 and 5, `models/{m2m_100,clip,siglip}`. The defaults are
theirs: a configuration may leave out settings that have them.
"""

import math
from typing import Any

import numpy as np

from clipita.convert.layouts.bert_towers import ROBERTAS, TextTower, bert_tower, distilbert_tower
from clipita.convert.layouts.leaves import Names, linear, norm, repeated
from clipita.convert.layouts.settings import Settings
from clipita.system.arrays import Array
from clipita.towers.config import ClipTextConfig


def text_tower(settings: Settings, *, pooling: str | None = None) -> TextTower:
    """Read the text tower that `settings` describe.

    Args:
        settings: The configuration, with "model_type".
        pooling: "mean", "cls" or "pooler", if the layout has a pooling of its own; M2M100 always gives its first token.

    Raises:
        CheckpointError: The architecture or a setting of it is not known.
    """
    kind = settings.text("model_type")
    if kind in ("bert", *ROBERTAS):
        return bert_tower(settings, kind, pooling)
    if kind == "distilbert":
        return distilbert_tower(settings, pooling)
    if kind == "m2m_100" and pooling is not None:
        return _m2m100(settings)
    if kind in ("clip", "clip_text_model"):
        return _clip_text(settings)
    if kind in ("siglip", "siglip_text_model"):
        return _siglip_text(settings)
    known = ["bert", *ROBERTAS, "distilbert", "m2m_100", "clip_text_model", "siglip_text_model"]
    raise settings.error("model_type", f"one of {', '.join(known)} for a text tower")


_M2M100_DEFAULTS = {
    "vocab_size": 128112, "d_model": 1024, "encoder_layers": 12, "encoder_attention_heads": 16,
    "encoder_ffn_dim": 4096, "max_position_embeddings": 1024, "activation_function": "relu",
    "pad_token_id": 1,
}  # fmt: skip
_M2M100 = {
    "embed_tokens.weight": "word.embedding",
    "embed_positions.weights": "position.embedding",
    **norm({"layer_norm": "norm"}),
}
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
    """Read the encoder of an M2M100, pooled at its first token as in open_clip."""
    settings = settings.with_defaults(_M2M100_DEFAULTS)
    settings.require(scale_embedding=True)
    config = ClipTextConfig(
        vocabulary=settings.count("vocab_size"),
        width=settings.count("d_model"),
        layers=settings.count("encoder_layers"),
        heads=settings.count("encoder_attention_heads"),
        mlp_width=settings.count("encoder_ffn_dim"),
        positions=settings.count("max_position_embeddings"),
        activation=settings.activation("activation_function"),
        epsilon=1e-5,
        attention="masked",
        pooling="cls",
    )
    names = _M2M100 | repeated("layers.{}.", config.layers, _M2M100_LAYER)
    positions = sinusoids(config.positions, config.width, settings.count("pad_token_id") + 1)

    def prepare(leaves: dict[str, Array], prefix: str) -> None:
        leaves[prefix + "embed_positions.weights"] = positions  # computed at every load, and seldom saved
        if (words := prefix + "embed_tokens.weight") in leaves:
            leaves[words] = leaves[words].astype(np.float32) * np.float32(math.sqrt(config.width))

    return TextTower(config, names, prepare=prepare)


def sinusoids(positions: int, width: int, first: int) -> Array:
    """Compute M2M100's positions from `first` on: (positions, width) float32, sines then cosines.

    All steps are in float32, as in `M2M100SinusoidalPositionalEmbedding.get_embedding`.
    """
    half = width // 2
    rates = np.exp(np.arange(half, dtype=np.float32) * np.float32(-math.log(10_000) / (half - 1)))
    angles = np.arange(first, first + positions, dtype=np.float32)[:, None] * rates
    table = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    return np.pad(table, ((0, 0), (0, width % 2)))


CLIP_LAYER = {
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


def clip_text_names(layers: int) -> Names:
    """Return the names of the leaves of CLIP's text tower; SigLIP's has a head as well."""
    return _CLIP_TEXT | repeated("encoder.layers.{}.", layers, CLIP_LAYER)


def _clip_text(settings: Settings) -> TextTower:
    settings = settings.with_defaults(_CLIP_TEXT_DEFAULTS)
    eos = settings.count("eos_token_id")
    # Files from before transformers 4.31 say 2 for any tokenizer; 2 therefore means the highest id.
    fields = _pre_norm_fields(settings)
    config = ClipTextConfig(
        **fields,
        attention="causal",
        pooling="highest" if eos == 2 else "eos",
        eos_token=None if eos == 2 else eos,
    )
    names = clip_text_names(config.layers)
    return TextTower(config, names, ("embeddings.position_ids",))


def _siglip_text(settings: Settings) -> TextTower:
    settings = settings.with_defaults(_SIGLIP_TEXT_DEFAULTS)
    config = ClipTextConfig(**_pre_norm_fields(settings), attention="full", pooling="last")
    names = clip_text_names(config.layers)
    return TextTower(config, names, ("embeddings.position_ids",))


def _pre_norm_fields(settings: Settings) -> dict[str, Any]:
    return {
        "vocabulary": settings.count("vocab_size"),
        "positions": settings.count("max_position_embeddings"),
        **transformer_size(settings),
    }


def transformer_size(settings: Settings) -> dict[str, Any]:
    """Read the sizes that all relatives of CLIP have under the same keys."""
    return {
        "width": settings.count("hidden_size"),
        "layers": settings.count("num_hidden_layers"),
        "heads": settings.count("num_attention_heads"),
        "mlp_width": settings.count("intermediate_size"),
        "activation": settings.activation("hidden_act"),
        "epsilon": settings.number("layer_norm_eps"),
    }
