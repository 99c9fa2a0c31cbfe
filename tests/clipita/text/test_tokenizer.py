"""Spelling, refusals, cutting and batching of text."""

import subprocess
import sys
import unicodedata
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.tiny_bundle import VOCABULARY, tiny_tokenizer

from clipita.errors import CheckpointError, TextError
from clipita.text.tokenizer import BUCKET_TOKENS, Tokenizer, TokenizerConfig, check_text, normalize

CONFIG = TokenizerConfig(max_tokens=12, prefix="query: ")
TOKENIZER = Tokenizer(tiny_tokenizer(), CONFIG)


@pytest.mark.parametrize(
    ("typed", "read"),
    [
        ("perche'", "perché"),
        ("PERCHE' NO", "PERCHÉ NO"),
        ("Perche’?", "Perché?"),
        ("una citta' di mare", "una città di mare"),
        ("l'universita`", "l'università"),
        ("e' piu' bello", "è più bello"),
        ("E' arrivato", "È arrivato"),
        ("c'e' un gatto; dov'e'?", "c'è un gatto; dov'è?"),
        ("si', cosi' va gia' bene", "sì, così va già bene"),
        ("lunedi' potra' venire", "lunedì potrà venire"),
        ("una tazza di te' o di caffe'", "una tazza di tè o di caffè"),
        ("ventitre' vicere'", "ventitré viceré"),
        ("papa' e' in gioventu'", "papà è in gioventù"),
    ],
)
def test_accents_typed_as_apostrophes_become_accents(typed: str, read: str) -> None:
    assert normalize(typed, CONFIG) == read


@pytest.mark.parametrize(
    "text",
    [
        "un po' di mare",
        "di' la verità, fa' presto, va' via, da' qua, sta' fermo",
        "a mo' d'esempio",
        "be', ve' che roba, to', ca' Foscari, fra' Angelico",
        "ne' boschi, que' monti, a mie' spese",
        "dell'acqua, l'anno, un'altra, quell'uomo, c'era, d'oro",
        "'la bella casa' e 'un pero'",
        "gli anni '60, rock'n'roll, 6' e 12''",
        "Andrea's cat",
        "perché città è già così",
    ],
)
def test_other_apostrophes_stay(text: str) -> None:
    assert normalize(text, CONFIG) == text


@given(st.text())
def test_normalize_is_idempotent(text: str) -> None:
    once = normalize(text, CONFIG)
    assert normalize(once, CONFIG) == once


def test_apostrophes_and_accents_are_of_one_form() -> None:
    assert {normalize(f"l{mark}acqua", CONFIG) for mark in "'’‘ʼ`´"} == {"l'acqua"}
    assert normalize(unicodedata.normalize("NFD", "città"), CONFIG) == "città"


def test_each_rule_can_be_turned_off() -> None:
    decomposed = unicodedata.normalize("NFD", "là")
    text = f"{decomposed} l’acqua perche'"
    off = TokenizerConfig(max_tokens=12, nfc=False, straight_apostrophes=False, accent_apostrophes=False)
    assert normalize(text, off) == text
    assert normalize(text, TokenizerConfig(12, nfc=False)) == f"{decomposed} l'acqua perché"
    assert normalize(text, TokenizerConfig(12, straight_apostrophes=False)) == "là l’acqua perché"
    assert normalize(text, TokenizerConfig(12, accent_apostrophes=False)) == "là l'acqua perche'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"texts\[1\] is '': there is nothing to read"),
        (" \t\n", r"texts\[1\] is .*nothing to read"),
        ("\u200b\u00a0", r"texts\[1\] is .*nothing to read"),
        ("\0", r"texts\[1\] is .*nothing to read"),
        ("a\0b", r"texts\[1\] holds a NUL character at position 1"),
        ("gatto \ud83d", r"texts\[1\] holds the lone surrogate '\\ud83d' at position 6"),
        (b"gatto", r"texts\[1\] must be a str, but it is bytes"),
        (None, r"texts\[1\] must be a str, but it is NoneType"),
        (3, r"texts\[1\] must be a str, but it is int"),
        (float("nan"), r"texts\[1\] must be a str, but it is float"),
    ],
)
def test_bad_texts_are_refused_by_index(text: object, message: str) -> None:
    with pytest.raises(TextError, match=message):
        TOKENIZER.encode(["un gatto", text])  # type: ignore[list-item]


def test_check_text_gives_back_a_good_text() -> None:
    assert check_text("😺!", "labels[0]") == "😺!"


def words(ids: np.ndarray) -> list[str]:
    return [VOCABULARY[i] for i in ids]


def test_prefix_and_specials() -> None:
    (batch,) = TOKENIZER.encode(["Un gatto nero"])
    assert words(batch.input_ids[0]) == ["<s>", "query:", "un", "gatto", "nero", "</s>"]
    assert batch.input_ids.dtype == batch.attention_mask.dtype == np.int64


def test_a_long_text_keeps_its_last_token_and_is_told_of_once() -> None:
    long = "gatto " * 40
    with pytest.warns(
        UserWarning, match=r"2 of 3 texts are longer than 12 tokens and were cut, .* texts\[0\]"
    ) as record:
        batches = TOKENIZER.encode([long, "cane", "nero " * 10])
    assert len(record) == 1
    assert words(batches[0].input_ids[0]) == ["<s>", "query:", *["gatto"] * 9, "</s>"]
    with pytest.raises(TextError, match=r"texts\[1\] is 43 tokens long, and this model reads 12"):
        TOKENIZER.encode(["cane", long], on_truncate="raise")
    assert TOKENIZER.encode([long], on_truncate="ignore")[0].input_ids.shape == (1, 12)
    with pytest.raises(ValueError, match="on_truncate must be"):
        TOKENIZER.encode([long], on_truncate="cut")  # type: ignore[arg-type]


def test_exactly_the_limit_is_not_cut() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (batch,) = TOKENIZER.encode(["gatto " * 9])
    assert batch.input_ids.shape == (1, 12)


@given(st.lists(st.integers(1, 9), max_size=30), st.integers(1, 5))
def test_batches_are_bucketed_padded_to_their_longest_and_complete(lengths: list[int], batch_size: int) -> None:
    texts = [" ".join(["gatto"] * length) for length in lengths]
    batches = TOKENIZER.encode(texts, batch_size=batch_size)
    places = [index for batch in batches for index in batch.indices]
    assert sorted(places) == list(range(len(texts)))
    widths = [batch.input_ids.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)
    for batch in batches:
        rows, width = batch.input_ids.shape
        assert rows <= batch_size
        assert len(np.unique(batch.input_ids, axis=0)) == rows  # duplicates once
        real = batch.attention_mask.sum(axis=1)
        assert real.max() == width
        assert width - real.min() < BUCKET_TOKENS
        assert (batch.input_ids[batch.attention_mask == 0] == 0).all()
        for index, row in zip(batch.indices, batch.rows, strict=True):
            assert real[row] == lengths[index] + 3


def test_the_same_text_in_two_spellings_is_encoded_once() -> None:
    (batch,) = TOKENIZER.encode(["perche'", "perché", "perche’"])
    assert batch.input_ids.shape[0] == 1
    assert batch.indices.tolist() == [0, 1, 2]
    assert batch.rows.tolist() == [0, 0, 0]


def test_threads_get_what_one_thread_gets() -> None:
    texts = [f"{a} {b} {c}" for a in VOCABULARY[4:] for b in ("cane", "gatto") for c in ("nero", "mare e mare")]
    expected = TOKENIZER.encode(texts)
    with ThreadPoolExecutor(8) as pool:
        for batches in pool.map(lambda _: TOKENIZER.encode(texts), range(32)):
            for batch, right in zip(batches, expected, strict=True):
                np.testing.assert_array_equal(batch.input_ids, right.input_ids)


def test_a_fork_afterwards_prints_nothing(shared_bundle: Path) -> None:
    code = (
        "import os, sys\n"
        "from clipita.text.tokenizer import Tokenizer, TokenizerConfig\n"
        "tokenizer = Tokenizer.from_file(sys.argv[1], TokenizerConfig(12))\n"
        "tokenizer.encode(['un gatto'] * 3 + ['un cane'])\n"
        "child = os.fork()\n"
        "tokenizer.encode(['un gatto', 'mare'])\n"
        "os._exit(0) if child == 0 else sys.exit(os.waitpid(child, 0)[1])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(shared_bundle / "tokenizer.json")], capture_output=True, text=True, check=True
    )
    assert (done.stdout, done.stderr) == ("", "")


def test_a_tokenizer_that_cuts_and_pads_by_itself_is_overruled(tmp_path: Path) -> None:
    engine = tiny_tokenizer()
    engine.enable_truncation(4)
    engine.enable_padding(length=40)
    engine.save(str(tmp_path / "tokenizer.json"))
    (batch,) = Tokenizer.from_file(tmp_path / "tokenizer.json", CONFIG).encode(["un gatto nero"])
    assert batch.input_ids.shape == (1, 6)


def test_files_and_configs_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(CheckpointError, match=r"tokenizer.json' is not a tokenizer.json that can be read"):
        Tokenizer.from_file(path, CONFIG)
    with pytest.raises(CheckpointError, match=r"pads with '\[PAD\]', which its tokenizer.json does not have"):
        Tokenizer(tiny_tokenizer(), TokenizerConfig(max_tokens=12, pad_token="[PAD]"))
    with pytest.raises(CheckpointError, match="max_tokens is 2, but the special tokens alone are 2"):
        Tokenizer(tiny_tokenizer(), TokenizerConfig(max_tokens=2))


def test_config_round_trip_is_strict() -> None:
    assert TokenizerConfig.from_dict(CONFIG.to_dict()) == CONFIG
    assert TokenizerConfig.from_dict({"max_tokens": 96}) == TokenizerConfig(96)
    with pytest.raises(CheckpointError, match=r"unknown key 'max_token'. Did you mean 'max_tokens'\?"):
        TokenizerConfig.from_dict({"max_token": 96})
    with pytest.raises(CheckpointError, match="lacks 'max_tokens'"):
        TokenizerConfig.from_dict({"prefix": ""})
    for wrong in ("96", True, 96.0, None):
        with pytest.raises(CheckpointError, match="'max_tokens' must be int, but it is"):
            TokenizerConfig.from_dict({"max_tokens": wrong})
