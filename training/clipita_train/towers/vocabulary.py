"""Which pieces of a multilingual vocabulary Italian needs: those that its words and the names of things use."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from wordfreq import top_n_list

from clipita.towers.config import BertConfig
from clipita_train.arrays import Array
from clipita_train.towers.cut_vocabulary import case_variants, cut_vocabulary, used_pieces

CAPITALISED = 30_000  # of the most frequent words, also as they begin a sentence
SHOUTED = 3_000  # and in capitals


def italian_vocabulary(full: Path, texts: Iterable[str], *, frequent_words: int) -> tuple[str, Array]:
    """The cut `tokenizer.json`, and for each piece its row in the full embedding.

    Args:
        full: the tokenizer with its whole vocabulary.
        texts: what must keep its segmentation: labels, words, captions; also with a capital.
        frequent_words: so many of the most frequent Italian words keep theirs.
    """
    words = top_n_list("it", frequent_words)
    return cut_vocabulary(full, used_pieces(full, _all_texts(texts, words)))


def cut_text_tower(
    config: BertConfig, weights: dict[str, Array], rows: Array, *, positions: int
) -> tuple[BertConfig, dict[str, Array]]:
    """The tower with only those rows of its tables that are ever read: of pieces, of positions, and of one type."""
    keep = {
        "word.embedding": rows,
        "position.embedding": np.arange(positions),
        "token_type.embedding": np.arange(1),
    }
    cut = {name: values[keep[name]] if name in keep else values for name, values in weights.items()}
    return replace(config, vocabulary=len(rows), positions=positions, token_types=1), cut


def _all_texts(texts: Iterable[str], words: list[str]) -> Iterator[str]:
    yield "query: "
    for text in texts:
        yield text
        yield text[:1].upper() + text[1:]
    yield from words
    yield from (word[:1].upper() + word[1:] for word in words[:CAPITALISED])
    yield from case_variants(words[:SHOUTED])
