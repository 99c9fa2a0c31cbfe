"""Read sentence-transformers' CLIPs: whole models, and text towers that were trained to match a CLIP.

`clip-ViT-B-32` is a folder with transformers' CLIP in `0_CLIPModel`. `clip-ViT-B-32-multilingual-v1` (Reimers and
Gurevych, arXiv:2004.09813) is half of a pair: a DistilBERT, the mean of its tokens, and a dense layer into the space of
that CLIP, whose image tower is the other half.
"""

import json
from pathlib import Path
from typing import Any, cast

from clipita.convert.folder.files import text_in
from clipita.convert.folder.origin import IMAGES
from clipita.convert.layouts.clip import clip_leaves, clip_towers, read_clip
from clipita.convert.layouts.dual import LINEAR, DualWeights, ProjectionLeaves, TextRules, assemble, clip_preprocessing
from clipita.convert.layouts.leaves import exp_scale, scalar
from clipita.convert.layouts.preprocessor_config import preprocessing_of
from clipita.convert.layouts.settings import Settings
from clipita.convert.layouts.text_towers import text_tower
from clipita.convert.readers.weights import read_weights
from clipita.errors import CheckpointError
from clipita.towers.config import ProjectionConfig

MODULES = "modules.json"


def read_sentence_transformers(folder: Path, images: Path | None) -> DualWeights:
    """Read the folder of a sentence-transformers model.

    Args:
        folder: A whole CLIP, or a text half.
        images: The folder of the image half: a CLIP as transformers or as sentence-transformers writes it. None means
            the folder "clip-ViT-B-32" inside `folder`.

    Raises:
        CheckpointError: A module, a file or a weight is not as expected, or there is no image half.
    """
    modules = _modules(folder)
    kinds = [kind for kind, _ in modules]
    if kinds[:1] == ["CLIPModel"] and set(kinds[1:]) <= {"Normalize"}:
        return read_clip(_below(folder, modules[0][1]))
    if kinds[:3] != ["Transformer", "Pooling", "Dense"] or not set(kinds[3:]) <= {"Normalize"}:
        raise CheckpointError(
            f"'{folder / MODULES}' has the modules {', '.join(kinds)}; expected CLIPModel, or Transformer, Pooling and "
            "Dense. Other models of sentence-transformers do not read images."
        )
    text_folder, pooling_folder, dense_folder = (_below(folder, path) for _, path in modules[:3])
    text_settings = Settings.read(text_folder / "config.json")
    text = text_tower(text_settings, pooling=_pooling(Settings.read(pooling_folder / "config.json")))
    dense = Settings.read(dense_folder / "config.json")
    if dense.text("activation_function").rpartition(".")[2] != "Identity":
        raise dense.error("activation_function", "'torch.nn.modules.linear.Identity'")
    bias = dense.flag("bias", True)

    clip = _image_half(folder, images)
    their_text, image, embed_dim = clip_towers(clip)
    if dense.count("out_features") != embed_dim:
        raise CheckpointError(
            f"'{folder}' makes text embeddings of width {dense.count('out_features')}, and '{clip}' image embeddings "
            f"of width {embed_dim}: they are not halves of one model."
        )
    arrays = {**read_weights(text_folder), **read_weights(dense_folder)}
    image_leaves = clip_leaves(clip)
    scale = exp_scale(scalar(image_leaves, "logit_scale"))
    # Of the image half's CLIP, only the text tower and its projection are left out.
    left_out = {f"text_model.{name}" for name in (*their_text.names, *their_text.harmless)} | {"text_projection.weight"}
    arrays |= {name: values for name, values in image_leaves.items() if name not in left_out}
    names = {"linear.weight": "linear.kernel"} | ({"linear.bias": "linear.bias"} if bias else {})
    config, weights = assemble(
        arrays,
        text,
        image,
        text_prefix="",
        image_prefix="vision_model.",
        text_projection=ProjectionLeaves(ProjectionConfig(bias=bias), names),
        image_projection=ProjectionLeaves(LINEAR, {"visual_projection.weight": "linear.kernel"}),
        embed_dim=embed_dim,
        preprocessing=preprocessing_of(clip, default=clip_preprocessing(image.image_size)),
    )
    rules = TextRules(text_folder, _max_tokens(text_folder, text.config.positions))
    return DualWeights(config, weights, rules, scale)


def image_folder(folder: Path) -> Path:
    """Return the folder of transformers' own files in the folder of a CLIP: that itself, or a module inside it."""
    if not (folder / MODULES).exists():
        return folder
    modules = _modules(folder)
    if not modules or modules[0][0] != "CLIPModel":
        raise CheckpointError(f"'{folder}' has no image tower: its first module is no CLIPModel.")
    return _below(folder, modules[0][1])


def _image_half(folder: Path, images: Path | None) -> Path:
    if images is not None:
        return image_folder(images)
    if (folder / IMAGES).is_dir():
        return image_folder(folder / IMAGES)
    raise CheckpointError(
        f"'{folder}' is the text half of a pair: it needs the image tower of the CLIP that it was taught to follow. "
        f"Put the folder of sentence-transformers' {IMAGES!r} into it, under that name."
    )


def _modules(folder: Path) -> list[tuple[str, str]]:
    """Return (kind, folder) of each module, in order; the kind is the last part of its class's name."""
    where = f"'{folder / MODULES}'"
    text = text_in(folder, MODULES, 1 << 20)
    try:
        listed: Any = json.loads(text or "")
        entries = [(str(entry["type"]).rpartition(".")[2], str(entry["path"])) for entry in cast("list[Any]", listed)]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise CheckpointError(f"{where} is not a list of modules: {error!r}. Download it again.") from error
    if not entries:
        raise CheckpointError(f"{where} lists no module. Download it again.")
    return entries


def _below(folder: Path, path: str) -> Path:
    place = folder / path
    if not place.resolve().is_relative_to(folder.resolve()):
        raise CheckpointError(f"'{folder / MODULES}' points to {path!r}, which is outside the folder.")
    return place


def _pooling(settings: Settings) -> str:
    """Return the pooling mode that is on; old files have a flag for each mode."""
    if "pooling_mode" in settings:
        modes = {settings.text("pooling_mode")}
    else:
        flags = {"cls_token": "cls", "mean_tokens": "mean", "max_tokens": "max", "lasttoken": "last token"}
        flags |= {"mean_sqrt_len_tokens": "mean by root", "weightedmean_tokens": "weighted mean"}
        modes = {mode for flag, mode in flags.items() if settings.flag(f"pooling_mode_{flag}", False)}
    if len(modes) != 1 or not modes <= {"mean", "cls"}:
        raise CheckpointError(f"{settings.where}: pools by {sorted(modes)}; clipita knows 'mean' alone or 'cls' alone.")
    return modes.pop()


def _max_tokens(folder: Path, positions: int) -> int:
    """Read `max_seq_length`, to which the library cuts texts."""
    if not (folder / "sentence_bert_config.json").exists():
        return positions
    settings = Settings.read(folder / "sentence_bert_config.json")
    return min(positions, settings.count("max_seq_length")) if "max_seq_length" in settings else positions
