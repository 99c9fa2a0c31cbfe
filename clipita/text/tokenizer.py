"""Turn texts into token ids: correct Italian spelling, cut long texts, and make batches of equal length.

The rules of spelling belong to the bundle (`TokenizerConfig`), because they must be those that the weights were trained
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

# Texts share a batch if their lengths round up to the same multiple of this. Wider buckets add more padding, narrower
# ones make more and smaller batches.
BUCKET_TOKENS = 8

# The most characters of a text that are read: this many, or _CHARACTERS_OF_TOKEN for each token that the tower reads,
# if that is more. Pieces have up to 16 characters, and spaces come on top. The time to compose a run of accents grows
# with the square of its length, 0.1 s for 10,000 and 11 s for 80,000.
MAX_CHARACTERS = 10_000
_CHARACTERS_OF_TOKEN = 24


@dataclasses.dataclass(frozen=True)
class TokenizerConfig:
    """The rules by which a text becomes tokens for a tower, as a bundle states them.

    Attributes:
        max_tokens: The most tokens of a text, special tokens and prefix included.
        prefix: A text to put before every text, e.g. "query: ".
        pad_token: The token of `tokenizer.json` that fills the shorter rows of a batch.
        nfc: Compose accents, so that "e" + combining grave is the one character "è".
        straight_apostrophes: Write ’ ‘ ʼ ` ´ as '.
        accent_apostrophes: Read "perche'", "citta'", "e'" as "perché", "città", "è"; see `restore_accents`.
        visible_only: Leave out invisible characters: soft hyphens, spaces of no width, marks of direction and of
            variants.
        plain_spaces: Write any run of white space, line ends included, as one space, and none at the ends.
        lower_case: Write capitals small, so that "UN GATTO" and "Un Gatto" become "un gatto". This is for a tower that
            was trained on small letters and knows capitals as other words.
        fixed_length: Pad every row to `max_tokens`, with a mask of 1 throughout, so that the tower reads the padding.
            SigLIP was trained so.
        pad_left: Put the padding first.
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
        """Read the object in a bundle's `clipita.json`.

        Args:
            data: The object.
            where: The beginning of every message.

        Raises:
            CheckpointError: A key or a value is not known.
        """
        return from_mapping(cls, data, where)

    def to_dict(self) -> dict[str, Any]:
        """Return the object for a bundle's `clipita.json`."""
        return dataclasses.asdict(self)


class TextBatch(NamedTuple):
    """A batch of distinct texts of similar length.

    `output[batch.indices] = embeddings[batch.rows]` puts the results in place.

    Attributes:
        indices: (N,) positions of this batch's texts among all texts; N > B if texts repeat.
        rows: (N,) the row in `input_ids` for each of these positions.
        input_ids: (B, L), padded to the longest of the batch or to the bundle's fixed length.
        attention_mask: (B, L), 1 for a token that the tower reads, 0 for padding.
    """

    indices: IntArray
    rows: IntArray
    input_ids: IntArray
    attention_mask: IntArray


class Tokenizer:
    """The tokenizer of a bundle. It has no state that changes, so threads may share it.

    Args:
        engine: A tokenizer of the tokenizers library.
        config: The rules of the bundle.

    Raises:
        CheckpointError: The two do not fit together.
    """

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
        # A tokenizer.json may hold a truncation and a padding of its own, to other lengths than the bundle's.
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
            CheckpointError: The file cannot be read as one, or does not fit `config`.
        """
        with tokenizer_errors(f"{os.fspath(path)!r} is not a tokenizer.json that can be read"):
            return cls(read_engine(Path(path)), config)

    def encode(
        self, texts: Sequence[str], *, batch_size: int = 64, on_truncate: OnTruncate = "warn"
    ) -> list[TextBatch]:
        """Turn texts into batches of token ids, longest texts first, each distinct text once.

        Args:
            texts: Texts in Italian or any other language. A text longer than `max_tokens` keeps its first tokens, and
                the special tokens at its end, which a tower may be pooled at.
            batch_size: The most rows in one batch.
            on_truncate: "warn" (one UserWarning that says how many were cut), "raise" or "ignore".

        Returns:
            Batches that together hold every index once; none for no texts.

        Raises:
            TextError: A text is not a str, is blank, holds NUL or a lone surrogate, or is too long under "raise".
            CheckpointError: The tokenizer itself fails on a text.
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
            # Texts are encoded one at a time: encode_batch starts a thread pool that warns after every fork.
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
        """Return a text in the spelling that the model reads: texts that become the same have the same embedding."""
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
    """Return how many special tokens stand behind a text: 1 for [CLS] ... [SEP], 0 if only the start is marked."""
    added = engine.encode("a").special_tokens_mask
    return added[::-1].index(0) if 0 in added else min(1, len(added))


def check_text(text: object, name: str) -> str:
    """Return a text that can be encoded, and refuse any other.

    Args:
        text: The text.
        name: Its name in error messages, e.g. "texts[3]" or "labels[0]".

    Raises:
        TextError: It is not a str, nothing in it is visible, or it holds a NUL or a lone surrogate.
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


# Characters that choose a variant of the sign before them. They are invisible, like the format characters (Cf).
_VARIANT_SELECTORS = re.compile("[\ufe00-\ufe0f\U000e0100-\U000e01ef]")


def normalize(text: str, config: TokenizerConfig) -> str:
    """Return a text in the spelling that the model was trained on, by the rules that `config` turns on."""
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


# A word that ends in a vowel, before an apostrophe that neither a letter nor another apostrophe follows.
_WORD_APOSTROPHE = re.compile(r"(?<!\w)([^\W\d_]*[aeiouAEIOU])'(?![\w'])")
_OPENING_QUOTE = re.compile(r"(?<!\w)'(?=\w)")

# Clippings keep their apostrophe: "sta' fermo", "fra' Cristoforo", "a mie' spese", "que' monti".
_CLIPPED = frozenset(("fra", "gua", "mie", "pie", "pro", "que", "sta", "suo", "tie", "tuo", "vie", "vuo"))
# Nearly all words of one or two letters are clippings (po', mo', di', fa', va', da', be', ve', to', ca' ...). These few
# are none, or so rarely that an accent is the better guess.
_SHORT_ACCENTED = frozenset(("e", "la", "li", "si", "te"))
# A final e is è (caffè, tè, cioè, bidè), except in these endings: perché, poiché, ventitré, viceré.
_ACUTE_E = re.compile(r"(?:.che|.tre|vicere)\Z")
_GRAVE = str.maketrans("aeiouAEIOU", "àèìòùÀÈÌÒÙ")
_ACUTE = str.maketrans("eE", "éÉ")


def restore_accents(text: str) -> str:
    """Restore accents that were typed as apostrophes: "perche'" becomes "perché", "e'" becomes "è".

    An elision drops a vowel, so that a consonant stands before its apostrophe and a letter after it ("dell'acqua",
    "l'anno", "un'altra"). A *vowel* before an apostrophe that ends the word is one of three things:

    - a clipping ("un po'", "di'", "fa'", "mo'"), which stays. Clippings are a closed list, and all words of one or two
      letters except e', si', li', la', te'; so ne' and da' stay, as in "ne' boschi" and "da' la zampa".
    - the end of a quotation ("'la bella casa'"): nothing is changed after an opening quote.
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
