"""Check that two encoders of one bundle agree, before the bundle is handed on."""

from pathlib import Path

from clipita.bundles.bundle import Bundle
from clipita.convert.fidelity import Encoder, fidelity
from clipita.errors import CheckpointError
from clipita.towers.opened import OpenedModel

MIN_AGREEMENT = 0.9999  # smallest cosine allowed; the same sums in another order differ by 1e-6


def agree(bundle: Bundle, one: Encoder, other: Encoder) -> float:
    """Return the smallest cosine between the embeddings of two encoders, for the same picture or text.

    Raises:
        CheckpointError: It is below `MIN_AGREEMENT`.
    """
    agreement = min(fidelity(OpenedModel.of(bundle), one, other).values())
    if agreement < MIN_AGREEMENT:
        names = " and ".join(type(encoder).__name__ for encoder in (one, other))
        raise CheckpointError(f"{names} disagree on {str(bundle.folder)!r}: a cosine of {agreement:.6f}.")
    return agreement


def size_of(folder: Path) -> int:
    """Return the bytes of all files in a folder."""
    return sum(path.stat().st_size for path in folder.iterdir())
