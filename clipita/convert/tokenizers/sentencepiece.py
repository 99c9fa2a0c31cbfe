"""Read SentencePiece models (`sentencepiece.bpe.model`, `spiece.model`, `tokenizer.model`) without SentencePiece.

The format is `sentencepiece_model.proto` of google/sentencepiece; the numbers below are its field numbers.
"""

from dataclasses import dataclass

from clipita.convert.readers.wire import bytes_of, fields, number, real, text
from clipita.errors import CheckpointError

_UNIGRAM = 1  # TrainerSpec.ModelType
_MAX_PIECES = 1_000_000


@dataclass(frozen=True)
class SentencePieceModel:
    """The part of a unigram model that defines how text is cut into pieces.

    Attributes:
        pieces: The pieces with their scores, in the order of their ids.
        unknown: The id of the piece for characters that no other piece has.
        byte_fallback: Whether characters outside the vocabulary become their UTF-8 bytes.
        charsmap: The compiled normalization rules, or b"" for none.
    """

    pieces: list[tuple[str, float]]
    unknown: int
    byte_fallback: bool
    charsmap: bytes


def read_sentencepiece(data: bytes) -> SentencePieceModel:
    """Read the contents of a model file.

    Raises:
        CheckpointError: The data is no such model, or one that is not of type unigram.
    """
    pieces: list[tuple[str, float]] = []
    model_type, unknown, byte_fallback, charsmap = _UNIGRAM, 0, False, b""  # the defaults of the format
    for field, value in fields(memoryview(data)):
        match field:
            case 1:  # pieces
                pieces.append(_piece(bytes_of(value)))
            case 2:  # trainer_spec
                spec = dict(fields(bytes_of(value)))
                model_type = number(spec.get(3, _UNIGRAM))
                byte_fallback = bool(number(spec.get(35, 0)))
                unknown = number(spec.get(40, 0))
            case 3:  # normalizer_spec
                charsmap = bytes_of(dict(fields(bytes_of(value))).get(2, memoryview(b""))).tobytes()
            case _:
                pass
        if len(pieces) > _MAX_PIECES:
            raise CheckpointError(f"it has more than {_MAX_PIECES} pieces")
    if model_type != _UNIGRAM:
        raise CheckpointError(
            f"it is of type {model_type}, and only unigram models (type {_UNIGRAM}) are read; save a tokenizer.json"
        )
    if not 0 <= unknown < len(pieces):
        raise CheckpointError(f"its unknown piece is number {unknown} of {len(pieces)}")
    return SentencePieceModel(pieces, unknown, byte_fallback, charsmap)


def _piece(message: memoryview) -> tuple[str, float]:
    values = dict(fields(message))
    return text(values.get(1, memoryview(b""))), real(values[2]) if 2 in values else 0.0
