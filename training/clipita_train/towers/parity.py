"""Whether two encoders of one bundle agree, as they must before it is handed on."""

from pathlib import Path

from clipita.bundles.bundle import Bundle
from clipita.convert.fidelity import Encoder, fidelity
from clipita.errors import CheckpointError
from clipita.towers.opened import OpenedModel

MIN_AGREEMENT = 0.9999  # of the two backends; the same numbers in another order differ by 1e-6


def agree(bundle: Bundle, one: Encoder, other: Encoder) -> float:
    """The smallest cosine of what two encoders make of the same picture or text.

    Raises:
        CheckpointError: it is below `MIN_AGREEMENT`.
    """
    agreement = min(fidelity(OpenedModel.of(bundle), one, other).values())
    if agreement < MIN_AGREEMENT:
        names = " and ".join(type(encoder).__name__ for encoder in (one, other))
        raise CheckpointError(f"{names} disagree on {str(bundle.folder)!r}: a cosine of {agreement:.6f}.")
    return agreement


def size_of(folder: Path) -> int:
    """Bytes of its files."""
    return sum(path.stat().st_size for path in folder.iterdir())
