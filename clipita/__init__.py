"""Compare Italian texts and images in one space of embeddings.

>>> import clipita
>>> clipita.zero_shot("foto.jpg", ["cane", "gatto"])
[LabelScore(label='gatto', score=0.98), LabelScore(label='cane', score=0.02)]
"""

from typing import TYPE_CHECKING, Any

from clipita.default_model import encode_image, encode_text, zero_shot
from clipita.errors import (
    BackendError,
    CheckpointError,
    ClipitaError,
    ImageError,
    ImageTooLargeError,
    ModelNotFoundError,
    TextError,
)
from clipita.loading.load import load
from clipita.locate.location import Location
from clipita.model import Encoded, Model
from clipita.system.process import turn_telemetry_off
from clipita.zero_shot import LabelBank, LabelScore

if TYPE_CHECKING:
    from clipita.search.index import Index

turn_telemetry_off()  # nothing above imports ONNX Runtime: it is imported with the first model

__version__ = "0.1.0"

__all__ = [
    "BackendError",
    "CheckpointError",
    "ClipitaError",
    "Encoded",
    "ImageError",
    "ImageTooLargeError",
    "Index",
    "LabelBank",
    "LabelScore",
    "Location",
    "Model",
    "ModelNotFoundError",
    "TextError",
    "__version__",
    "encode_image",
    "encode_text",
    "load",
    "zero_shot",
]


def __getattr__(name: str) -> Any:
    """Import `Index` when it is first asked for: who only compares texts and images does not wait for SQLite."""
    if name == "Index":
        from clipita.search.index import Index

        return Index
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
