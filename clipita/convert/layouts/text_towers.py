"""Text towers of the transformers library: what their configurations say, and what their leaves are called.

Source: transformers 4 and 5, `models/{bert,roberta,xlm_roberta,distilbert,m2m_100,clip,siglip}`. The defaults are
theirs: a configuration may leave out what does not differ from them.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from clipita.convert.layouts.leaves import Names, linear, norm, repeated
from clipita.convert.layouts.settings import Settings
from clipita.convert.quantize import Array
from clipita.errors import CheckpointError
from clipita.towers.config import BertConfig, ClipTextConfig, TextConfig

Prepare = Callable[[dict[str, Array], str], None]  # changes leaves, which begin with a prefix, before they are read


class TextTower(NamedTuple):
    """A text tower's size and leaves."""

    config: TextConfig
    names: Names  # of the tower alone, on both sides
    harmless: tuple[str, ...] = ()
    prepare: Prepare | None = None


def text_tower(settings: Settings, *, pooling: str | None = None) -> TextTower:
    """The text tower that `settings` describe.

    Args:
        settings: with "model_type".
        pooling: for BERT's family: "mean", "cls" or "pooler".

    Raises:
        CheckpointError: an architecture or a setting of it is not known.
    """
    kind = settings.text("model_type")
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
    first = settings.count("pad_token_id") + 1 if kind in _ROBERTAS else 0
    config = BertConfig(
        vocabulary=settings.count("vocab_size"),
        width=settings.count("hidden_size"),
        layers=settings.count("num_hidden_layers"),
        heads=settings.count("num_attention_heads"),
        mlp_width=settings.count("intermediate_size"),
        positions=settings.count("max_position_embeddings") - first,
        token_types=settings.count("type_vocab_size"),
        epsilon=settings.number("layer_norm_eps"),
        pooling=_bert_pooling(settings, pooling or "pooler"),
        activation=settings.activation("hidden_act"),
    )
    names = bert_names(config.layers) | (BERT_POOLER if config.pooling == "pooler" else {})
    # Buffers that count 0, 1, 2 ... or hold zeros; transformers stopped saving them at 4.31.
    return TextTower(config, names, ("embeddings.position_ids", "embeddings.token_type_ids"), _without_rows(first))


def _without_rows(count: int) -> Prepare | None:
    def prepare(leaves: dict[str, Array], prefix: str) -> None:
        name = prefix + "embeddings.position_embeddings.weight"
        if name in leaves:
            leaves[name] = leaves[name][count:]

    return prepare if count else None


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
        vocabulary=settings.count("vocab_size"),
        width=settings.count("dim"),
        layers=settings.count("n_layers"),
        heads=settings.count("n_heads"),
        mlp_width=settings.count("hidden_dim"),
        positions=settings.count("max_position_embeddings"),
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
    """The encoder alone, read at its first token, as open_clip does."""
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
    """M2M100's positions from `first` on: (positions, width) float32, sines then cosines.

    In float32 throughout, as `M2M100SinusoidalPositionalEmbedding.get_embedding` has it.
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
    """Of CLIP's text tower; SigLIP's has a head besides."""
    return _CLIP_TEXT | repeated("encoder.layers.{}.", layers, CLIP_LAYER)


def _clip_text(settings: Settings) -> TextTower:
    settings = settings.with_defaults(_CLIP_TEXT_DEFAULTS)
    eos = settings.count("eos_token_id")
    # Files from before transformers 4.31 say 2, whatever the tokenizer's end is; 2 therefore means the highest id.
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
    """What all of CLIP's relatives call alike."""
    return {
        "width": settings.count("hidden_size"),
        "layers": settings.count("num_hidden_layers"),
        "heads": settings.count("num_attention_heads"),
        "mlp_width": settings.count("intermediate_size"),
        "activation": settings.activation("hidden_act"),
        "epsilon": settings.number("layer_norm_eps"),
    }
