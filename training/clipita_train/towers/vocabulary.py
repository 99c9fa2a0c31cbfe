"""Cut a multilingual text tower down to the pieces that Italian words and the names of things need."""

from collections.abc import Iterable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
from wordfreq import top_n_list

from clipita.system.arrays import Array
from clipita.towers.config import BertConfig
from clipita_train.towers.cut_vocabulary import case_variants, cut_vocabulary, used_pieces

CAPITALIZED = 30_000  # how many of the most frequent words are also kept with a capital
UPPER_CASE = 3_000  # how many are also kept in capitals


def italian_vocabulary(full: Path, texts: Iterable[str], *, frequent_words: int) -> tuple[str, Array]:
    """Cut a tokenizer to the pieces of Italian.

    Args:
        full: The tokenizer with its whole vocabulary.
        texts: Texts whose segmentation must not change, also with a capital at the start: labels, words, captions.
        frequent_words: How many of the most frequent Italian words must keep their segmentation.

    Returns:
        The cut `tokenizer.json`, and for each of its pieces the row in the full embedding.
    """
    words = top_n_list("it", frequent_words)
    return cut_vocabulary(full, used_pieces(full, _all_texts(texts, words)))


def cut_text_tower(
    config: BertConfig, weights: dict[str, Array], rows: Array, *, positions: int
) -> tuple[BertConfig, dict[str, Array]]:
    """Cut the tables of a text tower to the rows that are ever read.

    Args:
        config: The architecture.
        weights: Its weights.
        rows: Rows of the word embedding to keep.
        positions: How many positions to keep; of token types only the first is kept.

    Returns:
        The new architecture and weights.
    """
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
    yield from (word[:1].upper() + word[1:] for word in words[:CAPITALIZED])
    yield from case_variants(words[:UPPER_CASE])
