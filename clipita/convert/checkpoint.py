"""Checkpoints of other libraries: which layout a folder has, and the dual encoder in it.

vision-text            transformers' VisionTextDualEncoder: BERT, RoBERTa or XLM-R beside CLIP's ViT, ViT or SigLIP's
hybrid-clip            the Flax script that CLIP-Italian was trained with, and its output
clip, siglip           transformers' CLIP, SigLIP, and SigLIP2 of fixed resolution
open-clip              open_clip_config.json: XLM-R or NLLB beside ViT, and CLIP's and SigLIP's own text towers
sentence-transformers  modules.json: a CLIP, or a text tower that follows one and needs its image tower

Nothing here imports PyTorch, JAX or the libraries themselves: a layout is a table of names and sizes.
"""

from collections.abc import Callable
from pathlib import Path

from clipita.convert.files import json_in
from clipita.convert.layouts.clip import read_clip, read_siglip
from clipita.convert.layouts.dual import DualWeights
from clipita.convert.layouts.open_clip import CONFIG as OPEN_CLIP_CONFIG
from clipita.convert.layouts.open_clip import read_open_clip
from clipita.convert.layouts.sentence_transformers import MODULES, read_sentence_transformers
from clipita.convert.layouts.vision_text import read_vision_text
from clipita.errors import CheckpointError

_BY_MODEL_TYPE: dict[str, tuple[str, Callable[[Path], DualWeights]]] = {
    "vision-text-dual-encoder": ("vision-text", read_vision_text),
    "hybrid-clip": ("hybrid-clip", read_vision_text),
    "clip": ("clip", read_clip),
    "siglip": ("siglip", read_siglip),
}


def detect_layout(folder: Path) -> str | None:
    """The layout of a folder, by its configuration files, or None.

    Raises:
        CheckpointError: a configuration file cannot be read.
    """
    if (folder / MODULES).exists():
        return "sentence-transformers"
    kind = (json_in(folder, "config.json") or {}).get("model_type")
    # A folder may hold a model twice. transformers' copy has its tokenizer and its preprocessing beside it.
    if isinstance(kind, str) and kind in _BY_MODEL_TYPE:
        return _BY_MODEL_TYPE[kind][0]
    return "open-clip" if (folder / OPEN_CLIP_CONFIG).exists() else None


def read_dual(folder: Path, *, images: Path | None = None) -> DualWeights:
    """The dual encoder in a folder.

    Args:
        folder: of any of the layouts above.
        images: the folder of the image half, for a text half of sentence-transformers.

    Raises:
        CheckpointError: the layout is not known; a file, a setting or a weight is missing, unknown or damaged.
    """
    layout = detect_layout(folder)
    if layout == "sentence-transformers":
        return read_sentence_transformers(folder, images)
    if layout == "open-clip":
        return read_open_clip(folder)
    for name, read in _BY_MODEL_TYPE.values():
        if name == layout:
            return read(folder)
    kind = (json_in(folder, "config.json") or {}).get("model_type")
    found = f"its config.json says 'model_type': {str(kind)[:80]!r}" if kind else "it has no config.json of any kind"
    raise CheckpointError(
        f"'{folder}' is of no layout that clipita reads: {found}. It reads {', '.join(_BY_MODEL_TYPE)} (transformers), "
        f"{OPEN_CLIP_CONFIG} (OpenCLIP) and {MODULES} (sentence-transformers), besides its own bundles."
    )
