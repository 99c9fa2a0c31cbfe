"""Load multilingual-e5-small for the tagger, with only the pieces and layers that it needs."""

from collections.abc import Sequence
from dataclasses import replace

import jax
from flax import nnx
from tokenizers import Tokenizer

from clipita.convert.weights.quantize import dequantize
from clipita.towers.bert import Bert
from clipita.towers.parameters import set_parameters
from clipita_train.towers.pretrained import e5_small, e5_tokenizer
from clipita_train.towers.vocabulary import cut_text_tower, italian_vocabulary


def e5_tower(words: Sequence[str], *, layers: int | None = None, rngs: nnx.Rngs) -> tuple[Tokenizer, Bert]:
    """Load the pretrained tokenizer and tower, with only the pieces of these words; None keeps all layers."""
    config, stored = e5_small()
    tokenizer_json, rows = italian_vocabulary(e5_tokenizer(), words, frequent_words=0)
    config, table = cut_text_tower(config, dequantize(stored), rows, positions=config.positions)
    kept = config.layers if layers is None else layers
    later = tuple(f"layers.{layer}." for layer in range(kept, config.layers))
    tower = Bert(replace(config, layers=kept), rngs=rngs)
    set_parameters(tower, {name: values for name, values in table.items() if not name.startswith(later)})
    return Tokenizer.from_str(tokenizer_json), tower


def hidden(tower: Bert, ids: jax.Array, is_piece: jax.Array, added: jax.Array | float = 0.0) -> jax.Array:
    """Return the states (B, L, D) after the tower's last layer.

    Args:
        tower: The tower.
        ids: (B, L) integers, ids of pieces.
        is_piece: (B, L) bool, False for padding.
        added: Added to the input of every piece.
    """
    assert tower.token_type is not None
    positions = tower.position.embedding[: ids.shape[1]] + tower.token_type.embedding[0][None]
    x = tower.norm(tower.word(ids) + positions[None] + added)
    for layer in tower.layers:
        x = layer(x, is_piece[:, None, None])
    return x
