"""Cut a multilingual Unigram vocabulary down to the pieces that one language uses.

Most parameters of a small multilingual model are embeddings of other languages' pieces. A piece that no text of ours
contains can be removed without changing anything: the best segmentation stays the best among fewer.
"""

import copy
import json
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers

from clipita.errors import CheckpointError
from clipita.system.arrays import Array

_SPACE = "▁"  # SentencePiece writes it for the space before a word
_PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~€£°§·«»‘’‚“”„†‡•…‰‹›–—−×÷±½¼¾²³ªº©®™"


def used_pieces(tokenizer_file: Path, texts: Iterable[str]) -> set[str]:
    """Return the pieces that `texts` are split into, without special tokens."""
    tokenizer = tokenizers.Tokenizer.from_file(str(tokenizer_file))
    used: set[int] = set()
    for batch in _chunks(texts, 10_000):
        for encoding in tokenizer.encode_batch(batch, add_special_tokens=False):
            used.update(encoding.ids)
    pieces = (tokenizer.id_to_token(id) for id in used)
    return {piece for piece in pieces if piece is not None}


def case_variants(words: Iterable[str]) -> Iterator[str]:
    """Yield each word as it is, with a capital, and in capitals, since frequency lists have lower case only."""
    for word in words:
        yield from (word, word[:1].upper() + word[1:], word.upper())


def cut_vocabulary(tokenizer_file: Path, keep: Iterable[str]) -> tuple[str, Array]:
    """Keep some pieces of a Unigram `tokenizer.json`, in their order, and renumber them.

    Special tokens are kept too, and all single Latin letters, digits and typographic signs, so that no text of a
    European language becomes <unk>. Scores, normalizer and everything else stay as they are.

    Args:
        tokenizer_file: The full tokenizer.
        keep: The pieces to keep, as `used_pieces` returns them, with "▁" for the space before a word.

    Returns:
        The new `tokenizer.json`, and for each of its pieces the row in the full embedding table, (V,) int64.

    Raises:
        CheckpointError: The file is not a Unigram tokenizer, or does not have a piece to keep.
    """
    full: dict[str, Any] = json.loads(tokenizer_file.read_text(encoding="utf-8"))
    model = full["model"]
    if model.get("type") != "Unigram":
        raise CheckpointError(f"'{tokenizer_file}' is a {model.get('type')} tokenizer; only Unigram ones can be cut")
    vocabulary: list[tuple[str, float]] = model["vocab"]
    wanted = set(keep)
    if unknown := wanted - {piece for piece, _ in vocabulary}:
        raise CheckpointError(f"'{tokenizer_file}' has no pieces {sorted(unknown)[:5]}")
    wanted |= {token["content"] for token in full["added_tokens"]}
    rows = [row for row, (piece, _) in enumerate(vocabulary) if piece in wanted or _is_basic(piece)]
    new_ids = {row: index for index, row in enumerate(rows)}

    cut = copy.copy(full)
    # Scores are float32 written as float64; the shortest form of the same number takes half the characters.
    pieces = [(vocabulary[row][0], float(str(np.float32(vocabulary[row][1])))) for row in rows]
    cut["model"] = model | {"vocab": pieces, "unk_id": new_ids[model["unk_id"]]}
    cut["added_tokens"] = [token | {"id": new_ids[token["id"]]} for token in full["added_tokens"]]
    cut["post_processor"] = copy.deepcopy(full["post_processor"])
    for special in cut["post_processor"]["special_tokens"].values():
        special["ids"] = [new_ids[id] for id in special["ids"]]
    return json.dumps(cut, ensure_ascii=False, separators=(",", ":")), np.array(rows)


def cut_embedding(stored: dict[str, Array], name: str, rows: Array) -> dict[str, Array]:
    """Return the weights `stored` (see `clipita.convert.quantize`) with only these rows of the embedding `name`."""
    own = {name, f"{name}.int4", f"{name}.scale"}
    return {key: values[rows] if key in own else values for key, values in stored.items()}


def same_segmentation(full_file: Path, cut_file: Path, texts: Iterable[str]) -> tuple[int, int, int]:
    """Compare a full and a cut tokenizer on texts.

    Returns:
        How many texts they split alike, how many <unk> the cut one adds, and how many texts there are.
    """
    full, cut = (tokenizers.Tokenizer.from_file(str(file)) for file in (full_file, cut_file))
    unknown = json.loads(cut_file.read_text(encoding="utf-8"))["model"]["unk_id"]
    same = new_unknown = count = 0
    for batch in _chunks(texts, 10_000):
        for a, b in zip(full.encode_batch(batch), cut.encode_batch(batch), strict=True):
            same += a.tokens == b.tokens
            new_unknown += b.ids.count(unknown) - a.tokens.count("<unk>")
            count += 1
    return same, new_unknown, count


def _is_basic(piece: str) -> bool:
    """Return whether a piece is a lone space, or one Latin letter, digit or sign, alone or at the start of a word."""
    letter = piece.removeprefix(_SPACE)
    if len(letter) != 1:
        return piece == _SPACE
    return letter in _PUNCTUATION or unicodedata.name(letter, "").startswith(("LATIN ", "DIGIT "))


def _chunks(texts: Iterable[str], size: int) -> Iterator[list[str]]:
    iterator = iter(texts)
    while chunk := list(islice(iterator, size)):
        yield chunk
