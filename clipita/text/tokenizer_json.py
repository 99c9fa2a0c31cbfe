"""Read a `tokenizer.json` without trust in it: limit its size and its cost, and turn its library's errors into ours."""

import base64
import contextlib
import json
import math
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from clipita.errors import CheckpointError

if TYPE_CHECKING:
    import tokenizers

# The largest in use, those of 256,000 pieces with their merges, are 35 MB and 2 million values. The library takes up to
# 260 bytes for a value, and ends the process when it gets no more.
_MAX_BYTES = 48 << 20
_MAX_VALUES = 2_500_000

# The most that a text may grow, as a factor. NFKC makes 18 letters of one Arabic ligature, which is the most in use.
_MAX_GROWTH = 100
_MAX_CHARSMAP = 4 << 20  # SentencePiece's rules for NFKC take 316,000 characters


def raise_if_stopped(error: BaseException) -> None:
    """Raise an error again unless it comes from the tokenizers library.

    The library raises a bare Exception, and its panics are not even subclasses of that.
    """
    if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
        raise error


@contextlib.contextmanager
def tokenizer_errors(message: str) -> Generator[None]:
    """Turn errors and panics of the tokenizers library into a CheckpointError that begins with `message`."""
    try:
        yield
    except BaseException as error:
        raise_if_stopped(error)
        raise CheckpointError(f"{message}: {str(error)[:300]}") from error


def read_engine(path: Path) -> "tokenizers.Tokenizer":
    """Read the tokenizer of a `tokenizer.json`. Its errors are to be caught by `tokenizer_errors`."""
    import tokenizers

    if (size := path.stat().st_size) > _MAX_BYTES:
        raise CheckpointError(f"it has {size:,} bytes, and tokenizers have at most {_MAX_BYTES:,}")
    content = path.read_bytes()
    if (values := content.count(b",")) > _MAX_VALUES:
        raise CheckpointError(f"it holds some {values:,} values, and tokenizers have at most {_MAX_VALUES:,}")
    return tokenizers.Tokenizer.from_buffer(content)


def check_growth(engine: "tokenizers.Tokenizer") -> None:
    """Refuse a normalizer that makes a text many times longer.

    Four replacements of "a" by 1,000 "a"s would make a terabyte of one letter.
    """
    if engine.normalizer is not None:
        growth = _growth(json.loads(engine.normalizer.__getstate__()))
        if growth > _MAX_GROWTH:
            raise CheckpointError(f"the model's tokenizer makes texts up to {growth} times longer: it means harm")


def _growth(normalizer: Any) -> int:
    """Return by which factor a normalizer can make a text longer."""
    match normalizer:
        case {"type": "Sequence", "normalizers": [*steps]}:
            return math.prod(_growth(step) for step in steps)
        case {"type": "Replace", "content": added} | {"type": "Prepend", "prepend": added}:
            return max(1, len(added))
        case {"type": "Precompiled", "precompiled_charsmap": encoded}:
            # SentencePiece's rules: the size of a trie, the trie, and its replacements, each closed with a NUL.
            if len(encoded) > _MAX_CHARSMAP:
                raise CheckpointError(f"the model's tokenizer has character rules of {len(encoded):,} bytes")
            charsmap = base64.b64decode(encoded)
            ends = charsmap[4 + int.from_bytes(charsmap[:4], "little") :].split(b"\0")
            return max(1, max(len(end.decode(errors="replace")) for end in ends))
        case _:
            return 1
