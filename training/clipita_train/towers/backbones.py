"""Read single pretrained towers: from checkpoints with one tower, from one half of a dual encoder, or from packages."""

import re
import tempfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from safetensors.numpy import load_file

from clipita.bundles.bundle import MANIFEST, TOKENIZER, WEIGHTS, read_bundle
from clipita.convert.layouts.bert_towers import BERT_POOLER
from clipita.convert.layouts.checkpoint import detect_layout, read_dual
from clipita.convert.layouts.dual import clip_preprocessing, half_preprocessing
from clipita.convert.layouts.efficientnet_lite import PIXEL_MEAN, PIXEL_STD
from clipita.convert.layouts.image_towers import image_tower
from clipita.convert.layouts.leaves import Names, prefixed, table_of, torch_names
from clipita.convert.layouts.preprocessor_config import preprocessing_of
from clipita.convert.layouts.settings import Settings
from clipita.convert.layouts.text_towers import text_tower
from clipita.convert.readers.weights import read_weights
from clipita.convert.tokenizers.files import tokenizer_of
from clipita.convert.weights.quantize import dequantize
from clipita.errors import CheckpointError
from clipita.images.pixels import Preprocessing
from clipita.loading.hub import resolve
from clipita.system.arrays import Array
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import BertConfig, DualConfig, ImageConfig, TextConfig, VitConfig
from clipita.towers.shapes import parameter_shapes
from clipita_train.towers.choices import ImageBackbone, TextBackbone
from clipita_train.towers.pretrained import LITE, e5_small, e5_tokenizer, efficientnet_lite
from clipita_train.towers.vocabulary import cut_text_tower, italian_vocabulary

Table = dict[str, Array]  # names of `clipita.towers.parameters`, without "image." or "text.", to weights
# Heads of pretraining tasks, which checkpoints have beside a tower and nothing here needs.
_HEADS = re.compile(
    r"(cls|lm_head|classifier|pre_classifier|vocab_transform|vocab_layer_norm|vocab_projector|qa_outputs"
    r"|visual_projection|text_projection)\."
)
_LEGACY = {".gamma": ".weight", ".beta": ".bias"}  # names of BERT's layer norms before 2019


class PretrainedImageTower(NamedTuple):
    """An image tower, and how its pixels are prepared."""

    config: ImageConfig
    preprocessing: Preprocessing
    weights: Table


class PretrainedTextTower(NamedTuple):
    """A text tower, and how texts become its token ids."""

    config: TextConfig
    weights: Table
    tokenizer_json: str
    tokenizer: TokenizerConfig


def read_image_tower(choice: ImageBackbone) -> PretrainedImageTower:
    """Read the image tower that a recipe names.

    Raises:
        ClipitaError: It is not there, or is of another kind, incomplete, or of another image size.
        FileNotFoundError: A package is missing; the message says which to install.
    """
    known = {f"efficientnet-lite{variant}": variant for variant in range(len(LITE))}
    if choice.source in known:
        config, found = efficientnet_lite(known[choice.source])
        preprocessing = Preprocessing(choice.size or 224, "shortest", "bicubic", PIXEL_MEAN, PIXEL_STD)
        return PretrainedImageTower(config, preprocessing, found.tower)
    folder = resolve(choice.source, revision=choice.revision)
    if (dual := _dual(folder)) is not None:
        config, preprocessing = dual.config.image, dual.config.preprocessing
        weights = _half(dual.weights, "image.")
    else:
        config, preprocessing, weights = _single_image(folder)
    if choice.size is None or choice.size == preprocessing.image_size:
        return PretrainedImageTower(config, preprocessing, weights)
    if isinstance(config, VitConfig):
        raise CheckpointError(
            f"{choice.source!r} reads images of {preprocessing.image_size} x {preprocessing.image_size} pixels, of "
            f"which it has {config.positions(preprocessing.image_size)} positions, but the recipe asks for "
            f"{choice.size}. Leave image.size out, or name a checkpoint of that size."
        )
    return PretrainedImageTower(config, replace(preprocessing, image_size=choice.size, short_side=None), weights)


def read_text_tower(choice: TextBackbone) -> PretrainedTextTower:
    """Read the text tower that a recipe names.

    Raises:
        ClipitaError: It is not there, or is of another kind or incomplete, or has too few positions or layers.
        FileNotFoundError: A package is missing; the message says which to install.
    """
    if choice.source == "multilingual-e5-small":
        config, stored = e5_small()
        weights, tokenizer_json = dequantize(stored), e5_tokenizer().read_text("utf-8")
        tokenizer = TokenizerConfig(max_tokens=config.positions, prefix="query: ")
    else:
        folder = resolve(choice.source, revision=choice.revision)
        if (dual := _dual(folder)) is not None:
            config, weights = dual.config.text, _half(dual.weights, "text.")
            tokenizer_json, tokenizer = dual.read_tokenizer()
        else:
            config, weights = _single_text(folder, choice.pooling)
            tokenizer_json, tokenizer = tokenizer_of(folder, max_tokens=config.positions)
    if choice.pooling not in (None, config.pooling):
        raise CheckpointError(f"{choice.source!r} pools by {config.pooling!r}: leave text.pooling out.")
    limit = choice.max_tokens or tokenizer.max_tokens
    if limit > config.positions:
        raise CheckpointError(
            f"{choice.source!r} has positions for {config.positions} tokens, but the recipe asks for {limit}: lower "
            "text.max_tokens."
        )
    tokenizer = replace(tokenizer, max_tokens=limit, prefix=choice.prefix or tokenizer.prefix)
    if choice.layers is not None:
        config, weights = _first_layers(choice, config, weights)
    if choice.frequent_words is not None:
        with tempfile.TemporaryDirectory() as scratch:
            full = Path(scratch) / "tokenizer.json"
            full.write_text(tokenizer_json, encoding="utf-8")
            tokenizer_json, rows = italian_vocabulary(full, (), frequent_words=choice.frequent_words)
        if not isinstance(config, BertConfig):
            raise CheckpointError(f"{choice.source!r} is no tower of BERT's kind: leave text.frequent_words out.")
        config, weights = cut_text_tower(config, weights, rows, positions=limit)
    return PretrainedTextTower(config, weights, tokenizer_json, tokenizer)


def _first_layers(choice: TextBackbone, config: TextConfig, weights: Table) -> tuple[TextConfig, Table]:
    assert choice.layers is not None
    if not 1 <= choice.layers <= config.layers:
        raise CheckpointError(
            f"{choice.source!r} has {config.layers} layers, but the recipe keeps the first {choice.layers}: lower "
            "text.layers."
        )
    dropped = tuple(f"layers.{index}." for index in range(choice.layers, config.layers))
    kept = {name: values for name, values in weights.items() if not name.startswith(dropped)}
    return replace(config, layers=choice.layers), kept


class _Dual(NamedTuple):
    config: DualConfig
    weights: Table
    read_tokenizer: Callable[[], tuple[str, TokenizerConfig]]


def _dual(folder: Path) -> _Dual | None:
    """Read both towers of a bundle, or of a checkpoint with two towers; None if the folder has only one."""
    if (folder / MANIFEST).exists():
        bundle = read_bundle(folder)
        texts = TokenizerConfig.from_dict(bundle.config.text["tokenizer"])
        weights = dequantize(load_file(bundle.path(WEIGHTS)))
        return _Dual(
            DualConfig.from_bundle(bundle.config), weights, lambda: (bundle.path(TOKENIZER).read_text("utf-8"), texts)
        )
    if detect_layout(folder) is None:
        return None
    dual = read_dual(folder)
    return _Dual(dual.config, dual.weights, lambda: tokenizer_of(**dual.texts._asdict()))


def _half(weights: Table, prefix: str) -> Table:
    return {name.removeprefix(prefix): values for name, values in weights.items() if name.startswith(prefix)}


def _single_text(folder: Path, pooling: str | None) -> tuple[TextConfig, Table]:
    tower = text_tower(Settings.read(folder / "config.json"), pooling=pooling)
    leaves = _leaves(folder, {"bert", "roberta", "distilbert", "text_model"})
    if tower.prepare is not None:
        tower.prepare(leaves, "")
    if missing := sorted(set(BERT_POOLER) & set(tower.names) - set(leaves)):
        raise CheckpointError(
            f"{str(folder)!r} has no {missing[0]!r}, a weight of the pooler: name text.pooling, 'mean' or 'cls'."
        )
    config = DualConfig(
        LITE[0], tower.config, half_preprocessing(32, "bicubic"), embed_dim=1
    )  # only its text half is used
    return tower.config, _table(leaves, tower.names, config, "text.", tower.harmless)


def _single_image(folder: Path) -> tuple[ImageConfig, Preprocessing, Table]:
    tower = image_tower(Settings.read(folder / "config.json"))
    config, names = tower.config, tower.names
    leaves = _leaves(folder, {"vision_model", "vit"})
    if config.pooling == "pooler" and not set(BERT_POOLER) & set(leaves):
        # A ViT that was saved with a classifier has no pooler, so its class token is used.
        config, names = replace(config, pooling="cls"), {a: b for a, b in names.items() if a not in BERT_POOLER}
    if config.embedding_norm:
        default = clip_preprocessing(tower.image_size)
    else:
        default = half_preprocessing(tower.image_size, "bilinear" if config.class_token else "bicubic")
    preprocessing = preprocessing_of(folder, default=default)
    if preprocessing.image_size != tower.image_size:
        raise CheckpointError(
            f"{str(folder)!r}: config.json says images of {tower.image_size} pixels, and preprocessor_config.json of "
            f"{preprocessing.image_size}. One of them is of another model."
        )
    dual = DualConfig(config, BertConfig(vocabulary=1), preprocessing, embed_dim=1)  # only its image half is used
    return config, preprocessing, _table(leaves, names, dual, "image.", tower.harmless)


def _leaves(folder: Path, wrappers: set[str]) -> Table:
    """Read the weights of a tower, without the name of the module that wraps it, and without heads."""
    leaves = dict(read_weights(folder))
    if any("/" in name for name in leaves):
        leaves = torch_names(leaves)
    for old, new in _LEGACY.items():
        leaves = {name.removesuffix(old) + new if name.endswith(old) else name: v for name, v in leaves.items()}
    leaves = {name: values for name, values in leaves.items() if not _HEADS.match(name)}
    wrapped = {name.partition(".")[0] for name in leaves} & wrappers
    return {name.partition(".")[2] if name.partition(".")[0] in wrapped else name: v for name, v in leaves.items()}


def _table(leaves: Table, names: Names, config: DualConfig, prefix: str, harmless: tuple[str, ...]) -> Table:
    shapes = {name: shape for name, shape in parameter_shapes(config).items() if name.startswith(prefix)}
    return _half(table_of(leaves, prefixed("", prefix, names), shapes, harmless=harmless), prefix)
