"""Read the tokenizer of a checkpoint's folder, as one `tokenizer.json` and the rules that a bundle adds to it.

A `tokenizer.json` is taken as it is; without one it is built from the files of older checkpoints.
`tokenizer_config.json` has the last word on lower case, accents, lengths and padding, as in transformers.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal, cast

import tokenizers
from tokenizers import normalizers

from clipita.convert.folder.files import file_in, json_in, text_in
from clipita.convert.tokenizers import kinds
from clipita.convert.tokenizers.sentencepiece import read_sentencepiece
from clipita.errors import CheckpointError
from clipita.text.tokenizer import Tokenizer, TokenizerConfig
from clipita.text.tokenizer_json import read_engine, tokenizer_errors

Settings = Mapping[str, Any]
Clean = Literal["whitespace", "lower", "canonicalize"]

_SENTENCEPIECE = ("sentencepiece.bpe.model", "spiece.model", "tokenizer.model", "sentencepiece.model")
# LaBSE's vocabulary of half a million pieces has 5 MB, and so has NLLB's model.
_MAX_VOCABULARY_BYTES = 8 << 20
_BERT_SETTINGS = {
    "do_lower_case": "lowercase",
    "strip_accents": "strip_accents",
    "tokenize_chinese_chars": "handle_chinese_chars",
}
# SigLIP 2 uses Gemma's tokenizer with settings of its own: lower case, no start token, an end token.
_GEMMA = frozenset(("Gemma", "Siglip2"))


def tokenizer_of(
    folder: Path, *, max_tokens: int, fixed_length: bool = False, lowercase: bool = False, clean: Clean | None = None
) -> tuple[str, TokenizerConfig]:
    """Return the `tokenizer.json` of a checkpoint, and its rules.

    Args:
        folder: Holds a tokenizer.json, a vocab.txt, a SentencePiece model, or a vocab.json with merges.txt.
        max_tokens: How many positions the text tower has for tokens; a smaller `model_max_length` counts instead.
        fixed_length: Whether the tower wants every text padded to `max_tokens`, and reads the padding (SigLIP).
        lowercase: Whether the tower was trained on lower case, even if the files do not say so (SigLIP 2).
        clean: The cleaning that open_clip does before its tokenizer, by its name in `tokenizer_kwargs`.

    Returns:
        The text of a `tokenizer.json`, and a config that leaves the spelling of texts as it is, since the tower was
        trained without corrections.

    Raises:
        CheckpointError: There is no tokenizer, a file of it is damaged or means harm, or its kind is not read. The
            message names the file.
    """
    files = [json_in(folder, name) or {} for name in ("special_tokens_map.json", "tokenizer_config.json")]
    settings = files[0] | files[1]
    path, engine = _read(folder, settings)
    with tokenizer_errors(f"'{path}' is no tokenizer that can be read"):
        _obey(engine, settings, lowercase=lowercase, clean=clean)
        if settings.get("truncation_side", "right") != "right":
            raise CheckpointError("it cuts texts at their start (truncation_side), which clipita does not")
        config = TokenizerConfig(
            max_tokens=min(max_tokens, _max_length(settings)),
            pad_token=_pad_token(engine, settings),
            nfc=False,
            straight_apostrophes=False,
            accent_apostrophes=False,
            fixed_length=fixed_length,
            pad_left=settings.get("padding_side") == "left",
        )
        Tokenizer(engine, config)  # runs the checks that loading runs
        return engine.to_str(), config


def _read(folder: Path, settings: Settings) -> tuple[Path, tokenizers.Tokenizer]:
    if (path := file_in(folder, "tokenizer.json")) is not None:
        with tokenizer_errors(f"'{path}' is not a tokenizer.json that can be read"):
            return path, read_engine(path)
    for names, build in _BUILDERS.items():
        for name in names:
            if file_in(folder, name, _MAX_VOCABULARY_BYTES) is not None:
                with tokenizer_errors(f"'{folder / name}' is no tokenizer that can be read"):
                    return folder / name, _with_added_tokens(build(folder, name, settings), settings)
    raise CheckpointError(
        f"'{folder}' holds no tokenizer: it has none of tokenizer.json, vocab.txt, {', '.join(_SENTENCEPIECE)}, nor "
        "vocab.json with merges.txt. Download the whole repository."
    )


def _from_vocabulary(folder: Path, name: str, settings: Settings) -> tokenizers.Tokenizer:
    return kinds.word_piece(text_in(folder, name, _MAX_VOCABULARY_BYTES) or "", settings)


def _from_sentencepiece(folder: Path, name: str, settings: Settings) -> tokenizers.Tokenizer:
    model = read_sentencepiece((folder / name).read_bytes())
    kind = _kind(settings) or {"sentencepiece.bpe.model": "XLMRoberta", "spiece.model": "Siglip"}.get(name, "")
    if kind not in _SENTENCEPIECE_KINDS:
        raise CheckpointError(
            f"'{folder / name}' is of the tokenizer_class {kind or '(tokenizer_config.json names none)'}; clipita "
            f"reads {', '.join(_SENTENCEPIECE_KINDS)}. Or save a tokenizer.json beside it, with a recent transformers."
        )
    return _SENTENCEPIECE_KINDS[kind](model, settings)


def _from_merges(folder: Path, name: str, settings: Settings) -> tokenizers.Tokenizer:
    vocabulary = json_in(folder, name, _MAX_VOCABULARY_BYTES) or {}
    merges_text = text_in(folder, "merges.txt", _MAX_VOCABULARY_BYTES)
    if merges_text is None:
        raise CheckpointError("the file 'merges.txt' that belongs to it is not there. Download the whole repository")
    if not all(type(id) is int and 0 <= id < 1 << 31 for id in vocabulary.values()):
        raise CheckpointError("it is not a mapping from pieces to ids")
    merges: list[tuple[str, str]] = []
    for line in merges_text.split("\n"):
        if line.startswith("#version") or not line.strip():
            continue
        first, _, second = line.rstrip("\r").partition(" ")
        merges.append((first, second))
    build = kinds.clip if _kind(settings) == "CLIP" or "<|startoftext|>" in vocabulary else kinds.roberta
    return build(vocabulary, merges, settings)


_SENTENCEPIECE_KINDS: dict[str, Callable[..., tokenizers.Tokenizer]] = {
    "XLMRoberta": kinds.xlm_roberta,
    "Siglip": kinds.siglip,
    "T5": kinds.t5,
}
_BUILDERS: dict[tuple[str, ...], Callable[[Path, str, Settings], tokenizers.Tokenizer]] = {
    ("vocab.txt",): _from_vocabulary,
    _SENTENCEPIECE: _from_sentencepiece,
    ("vocab.json",): _from_merges,
}


def _kind(settings: Settings) -> str:
    """Return the kind in the name of a tokenizer's class: "CLIP" in "CLIPTokenizerFast"."""
    named = settings.get("tokenizer_class")
    return named.removesuffix("Fast").removesuffix("Tokenizer") if isinstance(named, str) else ""


def _with_added_tokens(tokenizer: tokenizers.Tokenizer, settings: Settings) -> tokenizers.Tokenizer:
    """Add the tokens that `tokenizer_config.json` lists beyond the vocabulary, each under the id that it states."""
    added: Any = settings.get("added_tokens_decoder") or {}
    for id, entry in sorted(added.items(), key=lambda item: int(item[0])):
        flags = {name: entry.get(name, False) for name in ("lstrip", "rstrip", "normalized", "single_word", "special")}
        token = tokenizers.AddedToken(entry["content"], **flags)
        kinds.add_tokens(tokenizer, [token])
        if tokenizer.token_to_id(token.content) != int(id):
            raise CheckpointError(
                f"tokenizer_config.json says that {token.content[:40]!r} is number {id}, but it would be "
                f"{tokenizer.token_to_id(token.content)}"
            )
    return tokenizer


def _obey(engine: tokenizers.Tokenizer, settings: Settings, *, lowercase: bool, clean: Clean | None) -> None:
    """Change the tokenizer where the settings of `tokenizer_config.json` differ from it."""
    if isinstance(engine.normalizer, normalizers.BertNormalizer):
        for setting, own in _BERT_SETTINGS.items():
            if setting in settings:
                setattr(engine.normalizer, own, kinds.flag(settings, setting, None))
    first = kinds.open_clip_cleaning(clean) if clean else []
    if _kind(settings) in _GEMMA:
        lowercase = lowercase or kinds.flag(settings, "do_lower_case", _kind(settings) == "Siglip2")
        if {"add_bos_token", "add_eos_token"} & settings.keys():
            kinds.frame(
                engine,
                kinds.token(settings, "bos_token", "<bos>") if settings.get("add_bos_token") is True else None,
                kinds.token(settings, "eos_token", "<eos>") if settings.get("add_eos_token") is True else None,
            )
    if lowercase:
        first.append(normalizers.Lowercase())
    if first:
        engine.normalizer = normalizers.Sequence([*first, *([engine.normalizer] if engine.normalizer else [])])


def _max_length(settings: Settings) -> int:
    """Read `model_max_length`; transformers writes 10**30 for no limit."""
    length = settings.get("model_max_length", settings.get("max_len"))
    if length is None or (isinstance(length, float) and length > 1e9):
        return 1 << 30
    if type(length) is not int or length < 1:
        raise CheckpointError(f"tokenizer_config.json: model_max_length is {str(length)[:40]!r}, expected a number.")
    return length


def _pad_token(engine: tokenizers.Tokenizer, settings: Settings) -> str:
    padding = cast("dict[str, str]", engine.padding or {})  # pyright: ignore[reportUnknownMemberType]
    stated = kinds.token(settings, "pad_token", padding.get("pad_token", ""))
    for token in (stated, "<pad>", "[PAD]", "<|endoftext|>", "</s>"):
        if token and engine.token_to_id(token) is not None:
            return token
    raise CheckpointError("it has no padding token, and tokenizer_config.json names none of its own")
