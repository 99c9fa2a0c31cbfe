"""Build tokenizers of the tokenizers library from the files that older checkpoints have instead of a `tokenizer.json`.

Each function is named after a class of transformers 5 and builds the same tokenizer, so that token ids are the same.
Source: `transformers/models/*/tokenization_*.py`.
"""

import string
from collections.abc import Mapping
from typing import Any, cast

from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers, processors

from clipita.convert.tokenizers.sentencepiece import SentencePieceModel
from clipita.errors import CheckpointError

# The characters of \s in the tokenizers library, and those that only Python's str.split() takes for space.
_SPACES = r"[\s\x1c-\x1f]+"


def word_piece(vocabulary: str, settings: Mapping[str, Any]) -> Tokenizer:
    """Build BERT's tokenizer from `vocab.txt`, which has one piece a line."""
    lines = vocabulary.removesuffix("\n").split("\n")
    pieces = {line.rstrip(): index for index, line in enumerate(lines)}
    unknown, closing, pad, opening, mask = _tokens(
        settings, unk="[UNK]", sep="[SEP]", pad="[PAD]", cls="[CLS]", mask="[MASK]"
    )
    tokenizer = Tokenizer(models.WordPiece(pieces, unk_token=unknown))
    tokenizer.normalizer = normalizers.BertNormalizer(
        clean_text=True,
        handle_chinese_chars=flag(settings, "tokenize_chinese_chars", True),
        strip_accents=flag(settings, "strip_accents", None),
        lowercase=flag(settings, "do_lower_case", True),
    )
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    frame(tokenizer, opening, closing)
    _find_whole(tokenizer, unknown, closing, pad, opening, mask)
    return tokenizer


def xlm_roberta(model: SentencePieceModel, settings: Mapping[str, Any]) -> Tokenizer:
    """Build XLM-RoBERTa's tokenizer from `sentencepiece.bpe.model`; four tokens of fairseq replace its first three."""
    opening, pad, closing, unknown, mask = _tokens(
        settings, bos="<s>", pad="<pad>", eos="</s>", unk="<unk>", mask="<mask>"
    )
    specials = [(token, 0.0) for token in (opening, pad, closing, unknown)]
    tokenizer = _unigram([*specials, *model.pieces[3:], (mask, 0.0)], 3, model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(prepend_scheme="always" if flag(settings, "add_prefix_space", True) else "never"),
        ]
    )
    frame(tokenizer, opening, closing)
    _find_whole(tokenizer, opening, pad, closing, unknown)
    # The word before a mask keeps no space: AddedToken(lstrip=True) in transformers.
    _find_whole(tokenizer, mask, lstrip=True)
    return tokenizer


def t5(model: SentencePieceModel, settings: Mapping[str, Any]) -> Tokenizer:
    """Build T5's tokenizer from `spiece.model`, with the extra ids behind its pieces."""
    extra = settings.get("extra_ids", 100)
    if type(extra) is not int or not 0 <= extra <= 10_000:
        raise CheckpointError(f"extra_ids is {str(extra)[:40]!r}, expected a number up to 10000")
    closing, unknown, pad = _tokens(settings, eos="</s>", unk="<unk>", pad="<pad>")
    extras = [f"<extra_id_{index}>" for index in reversed(range(extra))]
    tokenizer = _unigram([*model.pieces, *((token, 0.0) for token in extras)], model.unknown, model)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace()])
    frame(tokenizer, None, closing)
    _find_whole(tokenizer, closing, unknown, pad, *extras)
    return tokenizer


def siglip(model: SentencePieceModel, settings: Mapping[str, Any]) -> Tokenizer:
    """Build SigLIP's tokenizer from `spiece.model`.

    It reads lower case without punctuation and with single spaces, has no start token, and ends and pads with "</s>".
    """
    closing, unknown, pad = _tokens(settings, eos="</s>", unk="<unk>", pad="</s>")
    tokenizer = _unigram(model.pieces, model.unknown, model)
    # The "▁" that begins a text is put before it first of all, so that spaces at the start survive `canonicalize` and
    # SentencePiece normalizes them.
    first = [normalizers.Replace("▁", " "), normalizers.Prepend("▁")]
    last = [tokenizer.normalizer] if tokenizer.normalizer else []
    last += [normalizers.Replace(Regex(" {2,}"), " "), normalizers.Strip(left=False), normalizers.Replace(" ", "▁")]
    last += [normalizers.Replace(Regex("^▁$"), "")]  # nothing is left of "&", and nothing is put before it
    canonical = canonicalize(lowercase=flag(settings, "do_lower_case", True) is True)
    tokenizer.normalizer = normalizers.Sequence([*first, *canonical, *last])
    frame(tokenizer, None, closing)
    _find_whole(tokenizer, closing, unknown, pad, lstrip=True, rstrip=True)
    return tokenizer


def clip(vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: Mapping[str, Any]) -> Tokenizer:
    """Build CLIP's tokenizer from `vocab.json` and `merges.txt`: lower case, and "</w>" at the end of words."""
    opening, closing, unknown, pad = _tokens(
        settings, bos="<|startoftext|>", eos="<|endoftext|>", unk="<|endoftext|>", pad="<|endoftext|>"
    )
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix="</w>", unk_token=unknown)
    )
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.NFC(), normalizers.Replace(Regex(r"\s+"), " "), normalizers.Lowercase()]
    )
    # OpenAI's pattern (clip/simple_tokenizer.py).
    words = r"<\|startoftext\|>|<\|endoftext\|>|'s|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+"
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(words), behavior="removed", invert=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False),
        ]
    )
    frame(tokenizer, opening, closing)
    _find_whole(tokenizer, unknown, opening, closing, pad)
    return tokenizer


def roberta(vocabulary: dict[str, int], merges: list[tuple[str, str]], settings: Mapping[str, Any]) -> Tokenizer:
    """Build RoBERTa's tokenizer from `vocab.json` and `merges.txt`: over bytes, with the space before a word in it."""
    opening, closing, pad, unknown, mask = _tokens(
        settings, cls="<s>", sep="</s>", pad="<pad>", unk="<unk>", mask="<mask>"
    )
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, continuing_subword_prefix="", end_of_word_suffix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(
        add_prefix_space=flag(settings, "add_prefix_space", False) is True
    )
    frame(tokenizer, opening, closing)
    _find_whole(tokenizer, unknown, closing, opening, pad)
    # The word before a mask keeps no space: AddedToken(lstrip=True) in transformers.
    _find_whole(tokenizer, mask, lstrip=True)
    return tokenizer


def canonicalize(*, lowercase: bool) -> list[normalizers.Normalizer]:
    """Return the steps of big_vision's `canonicalize_text`: lower case, no ASCII punctuation, single spaces."""
    punctuation = Regex("[" + "".join("\\" + sign for sign in string.punctuation) + "]")
    lower = [normalizers.Lowercase()] if lowercase else []
    return [*lower, normalizers.Replace(punctuation, ""), *_single_spaces()]


def open_clip_cleaning(clean: str) -> list[normalizers.Normalizer]:
    """Return the steps of open_clip's cleaning of a text, which comes before its tokenizer.

    Of ftfy they have the part that changes unbroken texts: accents are composed, quotation marks and apostrophes made
    straight. Source: `open_clip/tokenizer.py`.
    """
    whole = [
        normalizers.NFC(),
        normalizers.Replace(Regex("[\u02bc\u2018-\u201b]"), "'"),
        normalizers.Replace(Regex("[\u201c-\u201f]"), '"'),
    ]
    match clean:
        case "whitespace":
            return [*whole, *_single_spaces()]
        case "lower":
            return [*whole, *_single_spaces(), normalizers.Lowercase()]
        case "canonicalize":
            return [*whole, normalizers.Replace("_", " "), *canonicalize(lowercase=True)]
        case _:
            raise CheckpointError(f"open_clip's cleaning is {clean[:40]!r}, expected whitespace, lower or canonicalize")


def _single_spaces() -> list[normalizers.Normalizer]:
    return [normalizers.Replace(Regex(_SPACES), " "), normalizers.Strip()]


def _unigram(pieces: list[tuple[str, float]], unknown: int, model: SentencePieceModel) -> Tokenizer:
    tokenizer = Tokenizer(models.Unigram(pieces, unknown, model.byte_fallback))
    if model.charsmap:
        tokenizer.normalizer = normalizers.Precompiled(model.charsmap)
    return tokenizer


def frame(tokenizer: Tokenizer, opening: str | None, closing: str | None) -> None:
    """Put the token `opening` before and `closing` behind every text."""
    before, after = ([name] if name is not None else [] for name in (opening, closing))
    ids = [(name, tokenizer.token_to_id(name)) for name in dict.fromkeys((*before, *after))]
    if missing := [name for name, id in ids if id is None]:
        raise CheckpointError(f"its vocabulary lacks the special tokens {missing}")
    tokenizer.post_processor = processors.TemplateProcessing(
        single=[*before, "$A", *after], special_tokens=cast(Any, ids)
    )


def _find_whole(tokenizer: Tokenizer, *names: str, lstrip: bool = False, rstrip: bool = False) -> None:
    """Keep these tokens whole where they stand in texts. Those that the vocabulary lacks are left out."""
    known = [name for name in dict.fromkeys(names) if tokenizer.token_to_id(name) is not None]
    add_tokens(tokenizer, [AddedToken(name, lstrip=lstrip, rstrip=rstrip, special=True) for name in known])


def add_tokens(tokenizer: Tokenizer, tokens: list[AddedToken]) -> None:
    """Add tokens, special ones as special, each under the next id unless the vocabulary has it."""
    for added in tokens:
        add = tokenizer.add_special_tokens if added.special else tokenizer.add_tokens  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        add([added])


def _tokens(settings: Mapping[str, Any], **defaults: str) -> list[str]:
    """Return the tokens of these names: for `bos="<s>"` the "bos_token" of the settings, or "<s>" if it has none."""
    return [token(settings, f"{name}_token", default) for name, default in defaults.items()]


def token(settings: Mapping[str, Any], name: str, default: str) -> str:
    """Return a token from `tokenizer_config.json`, where it is a text or {"content": text, ...}."""
    value = settings.get(name)
    if isinstance(value, dict):
        value = cast("dict[str, object]", value).get("content")
    if value is None:
        return default
    if not isinstance(value, str):
        raise CheckpointError(f"{name} is {str(value)[:40]!r}, which is no token")
    return value


def flag(settings: Mapping[str, Any], name: str, default: bool | None) -> Any:
    """Return a setting that is true or false."""
    value = settings.get(name)
    if value not in (True, False, None):
        raise CheckpointError(f"{name} is {str(value)[:40]!r}, expected true or false")
    return default if value is None else value
