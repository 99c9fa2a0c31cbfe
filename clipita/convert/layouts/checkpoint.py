"""Tell the layout of a checkpoint of another library, and read the dual encoder in it.

vision-text            transformers' VisionTextDualEncoder: BERT, RoBERTa or XLM-R beside CLIP's ViT, ViT or SigLIP's
hybrid-clip            the Flax script that CLIP-Italian was trained with, and its output
clip, siglip           transformers' CLIP, SigLIP, and SigLIP2 of fixed resolution
open-clip              open_clip_config.json: XLM-R or NLLB beside ViT, and CLIP's and SigLIP's own text towers
sentence-transformers  modules.json: a CLIP, or a text tower that follows one and needs its image tower

Nothing here imports PyTorch, JAX or the other libraries: a layout is a table of names and sizes.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from clipita.convert.folder.files import has_weights, json_in
from clipita.convert.layouts.clip import read_clip, read_siglip
from clipita.convert.layouts.dual import DualWeights
from clipita.convert.layouts.open_clip import CONFIG as OPEN_CLIP_CONFIG
from clipita.convert.layouts.open_clip import read_open_clip
from clipita.convert.layouts.sentence_transformers import MODULES, read_sentence_transformers
from clipita.convert.layouts.vision_text import read_vision_text
from clipita.convert.tokenizers.files import tokenizer_of
from clipita.errors import CheckpointError
from clipita.system.arrays import Array
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import DualConfig

_BY_MODEL_TYPE: dict[str, tuple[str, Callable[[Path], DualWeights]]] = {
    "vision-text-dual-encoder": ("vision-text", read_vision_text),
    "hybrid-clip": ("hybrid-clip", read_vision_text),
    "clip": ("clip", read_clip),
    "siglip": ("siglip", read_siglip),
}


def detect_layout(folder: Path) -> str | None:
    """Return the name of a folder's layout, told by its configuration files, or None.

    Raises:
        CheckpointError: A configuration file cannot be read.
    """
    if (folder / MODULES).exists():
        return "sentence-transformers"
    kind = (json_in(folder, "config.json") or {}).get("model_type")
    has_open_clip = (folder / OPEN_CLIP_CONFIG).exists()
    # A folder may hold a model in two layouts. That of transformers is preferred: it has the tokenizer and the
    # preprocessing beside it.
    if isinstance(kind, str) and kind in _BY_MODEL_TYPE and (has_weights(folder) or not has_open_clip):
        return _BY_MODEL_TYPE[kind][0]
    return "open-clip" if has_open_clip else None


@dataclass(frozen=True)
class Checkpoint:
    """A model from another library's folder, in the form that `clipita.convert.export.write_dual_bundle` takes.

    Attributes:
        layout: The name of its layout, from the list at the top of this file.
        config: The architecture, its preprocessing included.
        weights: The weights by our names, in our layout; views of the files where these allow it.
        tokenizer_json: The text of a `tokenizer.json`.
        tokenizer: The tokenizer's rules and limits.
        logit_scale: The multiplier of cosines; never its logarithm.
        logit_bias: The summand of logits in models with a sigmoid loss, else None.
        templates: Sentences for labels. The bare label: with CLIP-Italian, 48 templates score 0.2 points less on
            ImageNet.
    """

    layout: str
    config: DualConfig
    weights: dict[str, Array]
    tokenizer_json: str
    tokenizer: TokenizerConfig
    logit_scale: float
    logit_bias: float | None = None
    templates: tuple[str, ...] = ("{}",)


def read_checkpoint(folder: Path, *, images: Path | None = None) -> Checkpoint:
    """Read the model in a folder, its tokenizer included. Arguments and errors are those of `read_dual`."""
    dual = read_dual(folder, images=images)
    tokenizer_json, tokenizer = tokenizer_of(**dual.texts._asdict())
    if tokenizer.pad_left and not tokenizer.fixed_length:
        raise CheckpointError(
            f"'{dual.texts.folder}' pads its texts at the start (padding_side), which moves their positions. clipita "
            "reads such towers only where every text has the same length. Save the tokenizer with padding_side='right'."
        )
    layout = detect_layout(folder) or ""
    return Checkpoint(layout, dual.config, dual.weights, tokenizer_json, tokenizer, dual.logit_scale, dual.logit_bias)


def read_dual(folder: Path, *, images: Path | None = None) -> DualWeights:
    """Read the dual encoder in a folder, without its tokenizer.

    Args:
        folder: A checkpoint in one of the layouts above.
        images: The folder of the image half, if `folder` is a text half of sentence-transformers.

    Raises:
        CheckpointError: The layout is not known; a file, a setting or a weight is missing, unknown or damaged.
    """
    layout = detect_layout(folder)
    if layout == "sentence-transformers":
        return read_sentence_transformers(folder, images)
    if layout == "open-clip":
        return read_open_clip(folder)
    for name, read in _BY_MODEL_TYPE.values():
        if name == layout:
            return read(folder)
    raise unknown_layout(folder)


def unknown_layout(folder: Path) -> CheckpointError:
    """Return the error for a folder that is in no known layout."""
    kind = (json_in(folder, "config.json") or {}).get("model_type")
    found = f"its config.json says 'model_type': {str(kind)[:80]!r}" if kind else "it has no config.json of any kind"
    return CheckpointError(
        f"'{folder}' is of no layout that clipita reads: {found}. It reads {', '.join(_BY_MODEL_TYPE)} (transformers), "
        f"{OPEN_CLIP_CONFIG} (OpenCLIP) and {MODULES} (sentence-transformers), besides its own bundles."
    )
