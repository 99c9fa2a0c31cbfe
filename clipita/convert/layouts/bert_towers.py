"""Read text towers of BERT's family: their sizes from transformers' configurations, and the names of their leaves.

Source: transformers 4 and 5, `models/{bert,roberta,xlm_roberta,camembert,distilbert}`. The defaults are theirs: a
configuration may leave out settings that have them.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

from clipita.convert.layouts.leaves import Names, linear, norm, repeated
from clipita.convert.layouts.settings import Settings
from clipita.errors import CheckpointError
from clipita.system.arrays import Array
from clipita.towers.config import BertConfig, TextConfig

Prepare = Callable[[dict[str, Array], str], None]  # changes leaves, whose names begin with a prefix


class TextTower(NamedTuple):
    """A text tower of a checkpoint.

    Attributes:
        config: Its size.
        names: Its leaves' names -> ours, both without the prefix of the tower.
        harmless: Leaves that it may hold and that have no effect.
        prepare: A change that its leaves need before they are read, or None.
    """

    config: TextConfig
    names: Names
    harmless: tuple[str, ...] = ()
    prepare: Prepare | None = None


ROBERTAS = ("roberta", "xlm-roberta", "camembert")
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
    """Return the names of a BERT's leaves, without its pooler's."""
    return _BERT | repeated("encoder.layer.{}.", layers, _BERT_LAYER)


def bert_tower(settings: Settings, kind: str, pooling: str | None) -> TextTower:
    """Read a BERT or one of `ROBERTAS`; without a `pooling` it is read by its pooler."""
    roberta = {"pad_token_id": 1, "max_position_embeddings": 514} if kind in ROBERTAS else {}
    settings = settings.with_defaults(_BERT_DEFAULTS | roberta)
    settings.require(position_embedding_type="absolute", is_decoder=False, add_cross_attention=False)
    # RoBERTa counts positions from the padding token's id + 1 (`create_position_ids_from_input_ids`).
    first = settings.count("pad_token_id") + 1 if kind in ROBERTAS else 0
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
    is_pooled = config.pooling == "pooler"
    names = bert_names(config.layers) | (BERT_POOLER if is_pooled else {})
    # The first two are buffers that count 0, 1, 2 ... or hold zeros; transformers stopped saving them at 4.31. The
    # pooler is saved even if nothing reads it.
    harmless = ("embeddings.position_ids", "embeddings.token_type_ids", *(() if is_pooled else BERT_POOLER))
    return TextTower(config, names, harmless, _without_rows(first))


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


def distilbert_tower(settings: Settings, pooling: str | None) -> TextTower:
    """Read a DistilBERT, which has no pooling of its own."""
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
