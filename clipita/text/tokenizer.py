"""Text to token ids: Italian spelling put right, cut with its end kept, batched by length.

The rules of `normalize` belong to the bundle (`TokenizerConfig`), because they must be those the weights were trained
with; each can be turned off for a checkpoint that was trained without it.
"""

import dataclasses
import os
import re
import unicodedata
import warnings
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import numpy as np

from clipita.bundles.strict import from_mapping
from clipita.errors import CheckpointError, TextError
from clipita.system.arrays import IntArray
from clipita.text.tokenizer_json import check_growth, raise_if_stopped, read_engine, tokenizer_errors

if TYPE_CHECKING:
    import tokenizers

OnTruncate = Literal["warn", "raise", "ignore"]

# Texts share a batch when their lengths round up to the same multiple of this. Wider buckets pad more, narrower ones
# run more and smaller batches.
BUCKET_TOKENS = 8

# Of a longer text only so many characters are looked at, or so many for each token that the tower reads, if that is
# more: pieces have up to 16, and spaces come on top. Composing accents takes a time that grows with the square of a run
# of them, 0.1 s for 10,000 and 11 s for 80,000.
MAX_CHARACTERS = 10_000
_CHARACTERS_OF_TOKEN = 24


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """What a bundle says about its text.

    Attributes:
        max_tokens: Longest input, special tokens and prefix included.
        prefix: Put before every text, e.g. "query: ".
        pad_token: The token of `tokenizer.json` that fills the shorter rows of a batch.
        nfc: Compose accents, so that "e" + combining grave is the one character "è".
        straight_apostrophes: Write ’ ‘ ʼ ` ´ as '.
        accent_apostrophes: Read "perche'", "citta'", "e'" as "perché", "città", "è"; see `restore_accents`.
        visible_only: Leave out characters that nobody sees: soft hyphens, spaces of no width, marks of direction and of
            variants.
        plain_spaces: Write any run of white space, line ends included, as one space, and none at the ends.
        lower_case: Write capitals small, so that "UN GATTO" and "Un Gatto" are "un gatto". For a tower that was trained
            on small letters and knows capitals as other words.
        fixed_length: Every row has `max_tokens`, and the tower reads its padding as it reads the rest: the mask is 1
            throughout. So SigLIP was trained.
        pad_left: Padding comes first.
    """

    max_tokens: int
    prefix: str = ""
    pad_token: str = "<pad>"
    nfc: bool = True
    straight_apostrophes: bool = True
    accent_apostrophes: bool = True
    visible_only: bool = False
    plain_spaces: bool = False
    lower_case: bool = False
    fixed_length: bool = False
    pad_left: bool = False

    @classmethod
    def from_dict(cls, data: object, where: str = "text.tokenizer") -> "TokenizerConfig":
        """Read the object that a bundle holds; `CheckpointError` on a key or value that is not understood."""
        return from_mapping(cls, data, where)

    def to_dict(self) -> dict[str, Any]:
        """The object that a bundle holds."""
        return dataclasses.asdict(self)


class TextBatch(NamedTuple):
    """Distinct texts of about one length. `output[batch.indices] = embeddings[batch.rows]` puts results in place.

    Attributes:
        indices: (N,) positions, in the texts given, of all those in this batch; N > B where texts repeat.
        rows: (N,) for each of them, its row in `input_ids`.
        input_ids: (B, L), padded to the longest of the batch or to the bundle's fixed length.
        attention_mask: (B, L), 1 for a token that the tower reads, 0 for padding.
    """

    indices: IntArray
    rows: IntArray
    input_ids: IntArray
    attention_mask: IntArray


class Tokenizer:
    """The tokenizer of a bundle. Holds no changing state: threads may share it."""

    def __init__(self, engine: "tokenizers.Tokenizer", config: TokenizerConfig) -> None:
        check_growth(engine)
        pad_id = engine.token_to_id(config.pad_token)
        if pad_id is None:
            raise CheckpointError(
                f"the bundle pads with {config.pad_token!r}, which its tokenizer.json does not have. "
                "Set text.tokenizer.pad_token to the padding token of that tokenizer and export again."
            )
        specials = engine.num_special_tokens_to_add(False)
        if config.max_tokens <= specials:
            raise CheckpointError(
                f"max_tokens is {config.max_tokens}, but the special tokens alone are {specials}. Export again."
            )
        # A tokenizer.json may carry its own cut and padding, to lengths that are not the bundle's.
        engine.no_truncation()
        engine.no_padding()
        self.config = config
        self._max_characters = max(MAX_CHARACTERS, _CHARACTERS_OF_TOKEN * config.max_tokens)
        self._engine = engine
        self._pad_id = pad_id
        self._closing = _closing_tokens(engine) if specials else 0

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], config: TokenizerConfig) -> "Tokenizer":
        """Read a `tokenizer.json` of the tokenizers library.

        Raises:
            CheckpointError: the file cannot be read as one, or does not fit `config`.
        """
        with tokenizer_errors(f"{os.fspath(path)!r} is not a tokenizer.json that can be read"):
            return cls(read_engine(Path(path)), config)

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 64, on_truncate: OnTruncate = "warn"
    ) -> list[TextBatch]:
        """Token ids of the texts, longest batch first, each distinct text once.

        Args:
            texts: Italian (or any) text. A text longer than `max_tokens` keeps its first tokens and the special
                tokens that close it, which a tower may read the end from.
            batch_size: Most rows in one batch.
            on_truncate: "warn" (one UserWarning that says how many were cut), "raise" or "ignore".

        Returns:
            Batches that together hold every index once. No texts, no batches.

        Raises:
            TextError: a text is not a str, is blank, holds NUL or a lone surrogate, or is too long under "raise".
            CheckpointError: the tokenizer itself fails on a text.
        """
        if on_truncate not in ("warn", "raise", "ignore"):
            raise ValueError(f"on_truncate must be 'warn', 'raise' or 'ignore', not {on_truncate!r}")
        places: defaultdict[str, list[int]] = defaultdict(list)
        cut: list[int] = []
        for index, text in enumerate(texts):
            checked = check_text(text, f"texts[{index}]")
            if len(checked) > self._max_characters:
                if on_truncate == "raise":
                    raise TextError(
                        f"texts[{index}] has {len(checked):,} characters, and at most {self._max_characters:,} "
                        "are read. Shorten it, or pass on_truncate='warn' to have it cut."
                    )
                cut.append(index)
            places[self.normalized(checked)].append(index)

        limit, closing = self.config.max_tokens, self._closing
        buckets: defaultdict[int, list[tuple[list[int], list[int]]]] = defaultdict(list)
        for text, indices in places.items():
            # One at a time: encode_batch starts a thread pool that warns after every fork.
            ids = self._ids(self.config.prefix + text)
            if len(ids) > limit:
                if on_truncate == "raise":
                    raise TextError(
                        f"texts[{indices[0]}] is {len(ids)} tokens long, and this model reads {limit}. "
                        "Shorten it, or pass on_truncate='warn' to have it cut."
                    )
                cut += set(indices) - set(cut)
                ids = [*ids[: limit - closing], *ids[len(ids) - closing :]]
            buckets[-(-len(ids) // BUCKET_TOKENS)].append((ids, indices))
        if cut and on_truncate == "warn":
            warnings.warn(
                f"{len(cut)} of {len(texts)} texts are longer than {limit} tokens and were cut, the first of them "
                f"texts[{min(cut)}]. Pass on_truncate='ignore' for no warning.",
                UserWarning,
                stacklevel=3,
            )
        batches: list[TextBatch] = []
        for width in sorted(buckets, reverse=True):
            rows = sorted(buckets[width], key=lambda row: len(row[0]), reverse=True)
            batches += [self._batch(rows[start : start + batch_size]) for start in range(0, len(rows), batch_size)]
        return batches

    def normalized(self, text: str) -> str:
        """Return the spelling that the model reads a text in: two texts of one spelling have one embedding."""
        return normalize(text[: self._max_characters], self.config)

    def _ids(self, text: str) -> list[int]:
        try:
            return self._engine.encode(text).ids
        except BaseException as error:
            raise_if_stopped(error)
            raise CheckpointError(f"the model's tokenizer fails on {text[:40]!r}: {error}. It is damaged.") from error

    def _batch(self, rows: list[tuple[list[int], list[int]]]) -> TextBatch:
        lengths = np.array([len(ids) for ids, _ in rows])
        width = self.config.max_tokens if self.config.fixed_length else lengths[0]  # the first row is the longest
        mask = np.arange(width) < lengths[:, None]  # (B, L)
        if self.config.pad_left:
            mask = mask[:, ::-1]
        input_ids = np.full(mask.shape, self._pad_id, dtype=np.int64)
        input_ids[mask] = np.concatenate([ids for ids, _ in rows])
        if self.config.fixed_length:
            mask = np.ones_like(mask)
        return TextBatch(
            indices=np.array([index for _, indices in rows for index in indices], dtype=np.int64),
            rows=np.repeat(np.arange(len(rows), dtype=np.int64), [len(indices) for _, indices in rows]),
            input_ids=input_ids,
            attention_mask=mask.astype(np.int64),
        )


def _closing_tokens(engine: "tokenizers.Tokenizer") -> int:
    """How many special tokens are put behind a text, e.g. 1 for [CLS] ... [SEP], 0 where only a start is marked."""
    added = engine.encode("a").special_tokens_mask
    return added[::-1].index(0) if 0 in added else min(1, len(added))


def check_text(text: object, name: str) -> str:
    """`text`, if it is one that can be encoded. `name` is how the error calls it: "texts[3]", "labels[0]".

    Raises:
        TextError: not a str, nothing visible in it, a NUL, or a lone surrogate.
    """
    if not isinstance(text, str):
        raise TextError(f"{name} must be a str, but it is {type(text).__name__}.")
    if not any(_is_visible(character) for character in text[:MAX_CHARACTERS]):
        raise TextError(f"{name} is {text[:20]!r}: there is nothing to read in it. Leave it out.")
    if "\0" in text:
        raise TextError(f"{name} holds a NUL character at position {text.index(chr(0))}. Remove it.")
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise TextError(
            f"{name} holds the lone surrogate {text[error.start]!r} at position {error.start}, which is half a "
            "character: it was decoded wrongly. Decode its source again, as UTF-8."
        ) from None
    return text


def _is_visible(character: str) -> bool:
    return unicodedata.category(character)[0] not in "CZ" and not _VARIANT_SELECTORS.match(character)


_CURLY = str.maketrans("’‘ʼ`´", "'''''")


# What chooses between variants of the sign before it, beside the format characters (Cf), which nobody sees either.
_VARIANT_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def normalize(text: str, config: TokenizerConfig) -> str:
    """Return `text` in the spelling that the model was trained on, by the rules that `config` turns on."""
    if config.visible_only and not text.isascii():
        visible = (character for character in text if unicodedata.category(character) != "Cf")
        text = _VARIANT_SELECTORS.sub("", "".join(visible))
    if config.nfc:
        text = unicodedata.normalize("NFC", text)
    if config.straight_apostrophes:
        text = text.translate(_CURLY)
    if config.plain_spaces:
        text = " ".join(text.split())
    if config.accent_apostrophes:
        text = restore_accents(text)
    return text.lower() if config.lower_case else text


# A word of at least one letter before an apostrophe that no letter and no other apostrophe follows.
_WORD_APOSTROPHE = re.compile(r"(?<!\w)([^\W\d_]*[aeiouAEIOU])'(?![\w'])")
_OPENING_QUOTE = re.compile(r"(?<!\w)'(?=\w)")

# Clippings keep their apostrophe: "sta' fermo", "fra' Cristoforo", "a mie' spese", "que' monti".
_CLIPPED = frozenset(("fra", "gua", "mie", "pie", "pro", "que", "sta", "suo", "tie", "tuo", "vie", "vuo"))
# Of the words of one or two letters nearly all are clippings (po', mo', di', fa', va', da', be', ve', to', ca' ...);
# these few are not, or so rarely that the accent is the better guess.
_SHORT_ACCENTED = frozenset(("e", "la", "li", "si", "te"))
# è is the rule for a final e (caffè, tè, cioè, bidè), é that of these endings: perché, poiché, ventitré, viceré.
_ACUTE_E = re.compile(r"(?:.che|.tre|vicere)\Z")
_GRAVE = str.maketrans("aeiouAEIOU", "àèìòùÀÈÌÒÙ")
_ACUTE = str.maketrans("eE", "éÉ")


def restore_accents(text: str) -> str:
    """Accents written as apostrophes, as on keyboards without them: "perche'" is "perché", "e'" is "è".

    Elision drops a vowel and so leaves a consonant before its apostrophe ("dell'acqua", "l'anno", "un'altra"), with a
    letter after it. A *vowel* before an apostrophe that ends the word is one of three things:

    - a clipping ("un po'", "di'", "fa'", "mo'"): a closed list, left as it is. Words of one or two letters count as
      clippings except e', si', li', la', te'; so ne' and da' stay, for "ne' boschi" and "da' la zampa" are Italian.
    - the end of a quotation ("'la bella casa'"): nothing is touched after a quote that opens.
    - an accent, in every other case.
    """
    if "'" not in text:
        return text
    opening = _OPENING_QUOTE.search(text)
    end = opening.start() if opening else len(text)
    return _WORD_APOSTROPHE.sub(_accented, text[:end]) + text[end:]


def _accented(match: re.Match[str]) -> str:
    word = match[1]
    lower = word.lower()
    if lower in _CLIPPED or (len(word) <= 2 and lower not in _SHORT_ACCENTED):
        return match[0]
    return word[:-1] + word[-1].translate(_ACUTE if _ACUTE_E.search(lower) else _GRAVE)
