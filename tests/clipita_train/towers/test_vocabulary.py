"""Cutting a vocabulary: what stays, what it is called, and that texts are split as before."""

import json
from pathlib import Path

import numpy as np
import pytest
import tokenizers
from clipita_train.towers.cut_vocabulary import (
    case_variants,
    cut_embedding,
    cut_vocabulary,
    same_segmentation,
    used_pieces,
)
from support.tiny import tiny_tokenizer

from clipita.errors import CheckpointError


@pytest.fixture
def full(tmp_path: Path) -> Path:
    path = tmp_path / "full.json"
    content = json.loads(tiny_tokenizer())
    content["model"]["vocab"][4:4] = [
        ["猫", -3.0],
        ["кот", -3.0],
        ["▁кот", -3.0],
        ["»", -9.0],
        ["▁Ñ", -9.0],
        ["▁7", -9.0],
    ]
    path.write_text(json.dumps(content), encoding="utf-8")
    return path


def test_cut(full: Path, tmp_path: Path) -> None:
    texts = ["un gatto", "cane"]
    pieces = used_pieces(full, texts)
    assert pieces == {"▁un", "▁gatto", "▁cane"}
    content, rows = cut_vocabulary(full, pieces)
    cut = tmp_path / "cut.json"
    cut.write_text(content, encoding="utf-8")
    names = [piece for piece, _ in json.loads(full.read_text(encoding="utf-8"))["model"]["vocab"]]
    kept = [piece for piece, _ in json.loads(content)["model"]["vocab"]]
    assert [names[row] for row in rows] == kept
    assert kept[:7] == ["<s>", "<pad>", "</s>", "<unk>", "»", "▁Ñ", "▁7"]
    assert not {"猫", "кот", "▁кот", "▁una"} & set(kept)
    assert {"▁", "à", "'", *pieces} <= set(kept)
    assert same_segmentation(full, cut, texts) == (2, 0, 2)
    assert same_segmentation(full, cut, ["una", "un кот"]) == (0, 1, 2)
    encoded = tokenizers.Tokenizer.from_file(str(cut)).encode("una")
    assert encoded.tokens == ["<s>", "▁un", "a", "</s>"]


def test_cut_embedding_in_every_format() -> None:
    stored = {
        "word.embedding.int4": np.arange(6).reshape(3, 2),
        "word.embedding.scale": np.arange(3),
        "norm.bias": np.ones(3),
    }
    cut = cut_embedding(stored, "word.embedding", np.array([2, 0]))
    assert cut["word.embedding.int4"].tolist() == [[4, 5], [0, 1]]
    assert cut["word.embedding.scale"].tolist() == [2, 0]
    assert cut["norm.bias"] is stored["norm.bias"]


def test_case_variants() -> None:
    assert list(case_variants(["perché"])) == ["perché", "Perché", "PERCHÉ"]


def test_refusals(full: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"has no pieces \['▁zebra'\]"):
        cut_vocabulary(full, {"▁zebra"})
    other = tmp_path / "other.json"
    other.write_text(json.dumps({"model": {"type": "BPE"}}), encoding="utf-8")
    with pytest.raises(CheckpointError, match="is a BPE tokenizer"):
        cut_vocabulary(other, set())
