"""Compare Italian texts and images in one space of embeddings.

>>> import clipita
>>> clipita.zero_shot("foto.jpg", ["cane", "gatto"])
[LabelScore(label='gatto', score=0.98), LabelScore(label='cane', score=0.02)]
"""

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
from clipita.model import Encoded, Model
from clipita.search.index import Index
from clipita.system.process import turn_telemetry_off
from clipita.zero_shot import LabelBank, LabelScore

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
    "Model",
    "ModelNotFoundError",
    "TextError",
    "__version__",
    "encode_image",
    "encode_text",
    "load",
    "zero_shot",
]
