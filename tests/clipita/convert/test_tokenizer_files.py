"""Token ids of foreign checkpoints' tokenizers against transformers' own classes, read from the same folder."""

import importlib.util
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tokenizers
from support.italian import strings, words
from support.reference import sentencepiece, transformers
from tokenizers import models, normalizers, pre_tokenizers, trainers

from clipita.convert.tokenizers.files import tokenizer_of
from clipita.errors import CheckpointError
from clipita.text.tokenizer import Tokenizer, TokenizerConfig

MAX_TOKENS = 64
CLIP_SPECIALS = ["<|startoftext|>", "<|endoftext|>"]
ROBERTA_SPECIALS = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]


def ours(folder: Path, **options: Any) -> tuple[Tokenizer, TokenizerConfig]:
    text, config = tokenizer_of(folder, **{"max_tokens": MAX_TOKENS, **options})
    return Tokenizer(tokenizers.Tokenizer.from_str(text), config), config


def ids(tokenizer: Tokenizer, texts: tuple[str, ...]) -> list[list[int]]:
    """The ids of each text, without the padding."""
    rows: list[list[int]] = [[]] * len(texts)
    for batch in tokenizer.encode(texts, on_truncate="ignore"):
        for index, row in zip(batch.indices, batch.rows, strict=True):
            rows[index] = batch.input_ids[row][batch.attention_mask[row] == 1].tolist()
    return rows


def assert_same(folder: Path, reference: Any, *, ties: int = 0, **options: Any) -> None:
    """Ids are those of the reference. A tie is two cuts of equal score into the same pieces, in another order."""
    tokenizer, _ = ours(folder, **options)
    texts = strings()
    assert len(texts) == 2000
    expected = reference(list(texts), truncation=True, max_length=MAX_TOKENS)["input_ids"]
    # Enough of the vocabulary is used for the comparison to mean something.
    assert len({id for row in expected for id in row}) > 300
    different = [rows for rows in zip(texts, ids(tokenizer, texts), expected, strict=True) if rows[1] != rows[2]]
    for text, given, wanted in different:
        assert sorted(given) == sorted(wanted), text
    assert len(different) <= ties, different[0]


def write_json(path: Path, value: object) -> None:
    path.write_text(json.dumps(value), encoding="utf-8")


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("corpus") / "corpus.txt"
    path.write_text("\n".join([*words(), *(" ".join(text.split()) for text in strings(400))]), encoding="utf-8")
    return path


@pytest.fixture(scope="session")
def vocabulary(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """A folder with a `vocab.txt`, cased or not."""

    def train(cased: bool) -> Path:
        folder = tmp_path_factory.mktemp("bert")
        tokenizer = tokenizers.Tokenizer(models.WordPiece(unk_token="[UNK]"))
        tokenizer.normalizer = normalizers.BertNormalizer(lowercase=not cased)
        tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
        specials = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
        tokenizer.train([str(corpus)], trainers.WordPieceTrainer(vocab_size=900, special_tokens=specials))
        tokenizer.model.save(str(folder))
        return folder

    return train


@pytest.mark.parametrize(
    "settings",
    [
        {"do_lower_case": False},
        {"do_lower_case": True},
        {"do_lower_case": True, "strip_accents": False},
        {"do_lower_case": False, "strip_accents": True, "tokenize_chinese_chars": False},
        {},
    ],
)
def test_bert_vocabulary(vocabulary: Callable[[bool], Path], settings: dict[str, Any]) -> None:
    folder = vocabulary(settings.get("do_lower_case") is False)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "BertTokenizer", **settings})
    reference = transformers.BertTokenizer.from_pretrained(folder)
    assert_same(folder, reference)
    # What transformers saves of it has a tokenizer.json.
    saved = folder / "saved"
    reference.save_pretrained(saved)
    assert (saved / "tokenizer.json").is_file()
    assert_same(saved, reference)


def train_sentencepiece(corpus: Path, model: Path, **options: Any) -> None:
    sentencepiece.SentencePieceTrainer.train(
        input=str(corpus), model_prefix=str(model.with_suffix("")), minloglevel=2, hard_vocab_limit=False, **options
    )


@pytest.mark.slow
@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity"])
def test_xlm_roberta_sentencepiece(corpus: Path, tmp_path: Path, rule: str) -> None:
    train_sentencepiece(corpus, tmp_path / "m.model", vocab_size=900, normalization_rule_name=rule)
    shutil.copy(tmp_path / "m.model", tmp_path / "sentencepiece.bpe.model")
    (tmp_path / "m.model").unlink()
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "XLMRobertaTokenizer"})
    reference = transformers.XLMRobertaTokenizer.from_pretrained(tmp_path)
    assert_same(tmp_path, reference)
    reference.save_pretrained(tmp_path / "saved")
    assert_same(tmp_path / "saved", reference)


@pytest.mark.parametrize("rule", ["nmt_nfkc", "identity", "nfkc_cf"])
def test_siglip_sentencepiece(corpus: Path, tmp_path: Path, rule: str) -> None:
    train_sentencepiece(
        corpus,
        tmp_path / "m.model",
        vocab_size=900,
        normalization_rule_name=rule,
        pad_id=0,
        eos_id=1,
        unk_id=2,
        bos_id=-1,
    )
    reference = transformers.SiglipTokenizer(str(tmp_path / "m.model"))
    reference.save_pretrained(tmp_path / "saved")
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == ["spiece.model", "tokenizer_config.json"]
    # This reference is SentencePiece itself, which adds up scores in float32, and tokenizers in float64: of "222" both
    # "2", "22" and "22", "2" have the same sum, and rounding decides.
    assert_same(tmp_path / "saved", reference, ties=1)

    assert ids(ours(tmp_path / "saved")[0], ("&", "... !")) == reference(["&", "... !"])["input_ids"]
    tokenizer, config = ours(tmp_path / "saved", fixed_length=True)
    assert (config.pad_token, config.max_tokens) == ("</s>", MAX_TOKENS)
    texts = [text for text in strings(200) if not any(sign.isdigit() for sign in text)]
    padded = reference(texts, padding="max_length", truncation=True, max_length=MAX_TOKENS)["input_ids"]
    for batch in tokenizer.encode(texts, on_truncate="ignore"):
        assert batch.input_ids.shape[1] == MAX_TOKENS
        assert batch.attention_mask.all()
        assert (batch.input_ids[batch.rows] == np.array(padded)[batch.indices]).all()


def test_t5_sentencepiece(corpus: Path, tmp_path: Path) -> None:
    train_sentencepiece(corpus, tmp_path / "spiece.model", vocab_size=900, pad_id=0, eos_id=1, unk_id=2, bos_id=-1)
    write_json(tmp_path / "tokenizer_config.json", {"tokenizer_class": "T5Tokenizer"})
    assert_same(tmp_path, transformers.T5Tokenizer.from_pretrained(tmp_path))


@pytest.fixture(scope="session")
def byte_pairs(corpus: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[bool], Path]:
    """A folder with `vocab.json` and `merges.txt`, of CLIP's kind or RoBERTa's."""

    def train(clip: bool) -> Path:
        folder = tmp_path_factory.mktemp("bpe")
        suffix = {"end_of_word_suffix": "</w>"} if clip else {}
        tokenizer = tokenizers.Tokenizer(models.BPE(**suffix))
        tokenizer.normalizer = normalizers.Lowercase() if clip else None
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [*([pre_tokenizers.Whitespace()] if clip else []), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
        trainer = trainers.BpeTrainer(
            vocab_size=1200,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            special_tokens=CLIP_SPECIALS if clip else ROBERTA_SPECIALS,
            **suffix,
        )
        tokenizer.train([str(corpus)], trainer)
        tokenizer.model.save(str(folder))
        if clip:  # OpenAI's vocabulary has every byte as the end of a word too
            vocabulary = json.loads((folder / "vocab.json").read_text(encoding="utf-8"))
            for sign in sorted(pre_tokenizers.ByteLevel.alphabet()):
                vocabulary.setdefault(f"{sign}</w>", len(vocabulary))
            write_json(folder / "vocab.json", vocabulary)
        return folder

    return train


def test_clip_byte_pairs(byte_pairs: Callable[[bool], Path]) -> None:
    folder = byte_pairs(True)
    reference = transformers.CLIPTokenizer.from_pretrained(folder)
    assert_same(folder, reference)
    reference.save_pretrained(folder / "saved")
    assert_same(folder / "saved", reference)


@pytest.mark.parametrize("space", [False, True])
def test_roberta_byte_pairs(byte_pairs: Callable[[bool], Path], space: bool) -> None:
    folder = byte_pairs(False)
    write_json(folder / "tokenizer_config.json", {"tokenizer_class": "RobertaTokenizer", "add_prefix_space": space})
    reference = transformers.RobertaTokenizer.from_pretrained(folder)
    assert_same(folder, reference)
    reference.save_pretrained(folder / "saved")
    assert_same(folder / "saved", reference)


@pytest.fixture(scope="session")
def gemma(corpus: Path) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Pieces and merges of Gemma's kind: "▁" for space, and bytes for what is not known."""
    tokenizer = tokenizers.Tokenizer(models.BPE(fuse_unk=True, byte_fallback=True, unk_token="<unk>"))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Split("▁", "merged_with_next")
    specials = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=1500, special_tokens=specials)
    tokenizer.train([str(corpus)], trainer)
    model = json.loads(tokenizer.to_str())["model"]
    return model["vocab"], [tuple(pair) for pair in model["merges"]]


def test_siglip2(gemma: tuple[dict[str, int], list[tuple[str, str]]], tmp_path: Path) -> None:
    vocabulary, merges = gemma
    options = {"add_bos_token": False, "add_eos_token": True, "padding_side": "right"}
    reference = transformers.Siglip2Tokenizer(vocab=vocabulary, merges=merges, **options)
    reference.save_pretrained(tmp_path / "siglip2")
    assert_same(tmp_path / "siglip2", reference)
    # As the hub has it: Gemma's class, whose tokenizer.json keeps capitals, and a setting.
    general = transformers.GemmaTokenizer(vocab=vocabulary, merges=merges, **options, do_lower_case=True)
    general.save_pretrained(tmp_path / "gemma")
    assert "Lowercase" not in (tmp_path / "gemma" / "tokenizer.json").read_text()
    assert_same(tmp_path / "gemma", reference)
    assert_same(tmp_path / "gemma", reference, lowercase=True)


def test_padding_on_the_left(vocabulary: Callable[[bool], Path]) -> None:
    folder = vocabulary(True)
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False, "padding_side": "left"})
    reference = transformers.BertTokenizer.from_pretrained(folder)
    texts = ["un gatto nero", "cane", "una foto di una casa"]
    expected = reference(texts, padding=True)
    tokenizer, _ = ours(folder)
    for batch in tokenizer.encode(texts):
        width = batch.input_ids.shape[1]
        wanted = np.array(expected["input_ids"])[batch.indices][:, -width:]
        assert (batch.input_ids[batch.rows] == wanted).all()
        mask = np.array(expected["attention_mask"])[batch.indices][:, -width:]
        assert (batch.attention_mask[batch.rows] == mask).all()


def test_the_shorter_of_both_limits_counts(vocabulary: Callable[[bool], Path]) -> None:
    folder = vocabulary(True)
    for settings, limit in (({"model_max_length": 40}, 40), ({"model_max_length": 512}, 64), ({"max_len": 9}, 9)):
        write_json(folder / "tokenizer_config.json", settings)
        assert ours(folder)[1].max_tokens == limit
    write_json(folder / "tokenizer_config.json", {"model_max_length": int(1e30)})
    assert ours(folder)[1].max_tokens == 64
    config = ours(folder)[1]
    assert not any((config.nfc, config.straight_apostrophes, config.accent_apostrophes))


def test_added_tokens_keep_their_ids(vocabulary: Callable[[bool], Path]) -> None:
    folder = vocabulary(True)
    size = len((folder / "vocab.txt").read_text(encoding="utf-8").splitlines())
    token = {"content": "<nome>", "special": True, "normalized": False, "lstrip": False, "rstrip": False}
    write_json(folder / "tokenizer_config.json", {"do_lower_case": False, "added_tokens_decoder": {str(size): token}})
    reference = transformers.BertTokenizer.from_pretrained(folder)
    text = "un gatto di nome <nome>."
    assert reference(text)["input_ids"] == ids(ours(folder)[0], (text,))[0]
    assert size in reference(text)["input_ids"]
    write_json(folder / "tokenizer_config.json", {"added_tokens_decoder": {"7": token}})
    with pytest.raises(CheckpointError, match=f"'<nome>' is number 7, but it would be {size}"):
        ours(folder)


@pytest.mark.parametrize("clean", ["whitespace", "lower", "canonicalize"])
def test_open_clip_cleaning(byte_pairs: Callable[[bool], Path], clean: Any) -> None:
    # open_clip's package wants torchvision; this file of it does not.
    (package,) = importlib.util.find_spec("open_clip").submodule_search_locations
    spec = importlib.util.spec_from_file_location("open_clip_tokenizer", Path(package) / "tokenizer.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    reference = module.get_clean_fn(clean)
    text, _ = tokenizer_of(byte_pairs(False), max_tokens=MAX_TOKENS, clean=clean)
    normalizer = tokenizers.Tokenizer.from_str(text).normalizer
    # ftfy also writes what NFKC would: ligatures and full-width letters.
    texts = [text for text in strings() if not set(text) & set("\ufb01\uff21\u3000")]
    assert len(texts) > 1500
    for text in texts:
        assert normalizer.normalize_str(text) == reference(text)


def test_what_is_not_there_is_named(tmp_path: Path, corpus: Path) -> None:
    with pytest.raises(CheckpointError, match=r"tokenizer\.json, vocab\.txt, .*spiece\.model.*merges\.txt"):
        ours(tmp_path)
    write_json(tmp_path / "vocab.json", {"a": 0})
    with pytest.raises(CheckpointError, match=r"merges\.txt.*is not there"):
        ours(tmp_path)
    train_sentencepiece(corpus, tmp_path / "tokenizer.model", vocab_size=500)
    with pytest.raises(CheckpointError, match=r"tokenizer_class .*names none.*XLMRoberta, Siglip, T5"):
        ours(tmp_path)
    train_sentencepiece(corpus, tmp_path / "spiece.model", vocab_size=500, model_type="bpe")
    with pytest.raises(CheckpointError, match=r"spiece\.model.*of type 2"):
        ours(tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"model_max_length": "lungo"}, "model_max_length is 'lungo'"),
        ({"do_lower_case": "sì"}, "do_lower_case is 'sì'"),
        ({"cls_token": 3}, "cls_token is '3'"),
        ({"cls_token": "[INIZIO]"}, r"lacks the special tokens \['\[INIZIO\]'\]"),
        ({"truncation_side": "left"}, "truncation_side"),
        ({"added_tokens_decoder": [1]}, r"vocab\.txt"),
        ({"added_tokens_decoder": {"x": {}}}, r"vocab\.txt"),
        ({"model_max_length": 2}, "special tokens alone are 2"),
    ],
)
def test_settings_that_make_no_sense(vocabulary: Callable[[bool], Path], settings: Any, message: str) -> None:
    folder = vocabulary(True)
    write_json(folder / "tokenizer_config.json", settings)
    with pytest.raises(CheckpointError, match=message):
        ours(folder)
