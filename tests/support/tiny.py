"""A tiny dual encoder with random weights: real towers, graphs and files, for tests of whatever runs a bundle."""

import json
import math
from functools import lru_cache
from pathlib import Path

import numpy as np
from flax import nnx

from clipita.bundles.bundle import Bundle
from clipita.convert.export import Provenance, Storage, write_dual_bundle
from clipita.convert.weights.quantize import SMALL, WeightFormat
from clipita.images.pixels import Preprocessing
from clipita.system.arrays import Array
from clipita.text.tokenizer import TokenizerConfig
from clipita.towers.config import BertConfig, DualConfig, ProjectionConfig
from clipita.towers.dual import DualEncoder
from clipita.towers.efficientnet_config import EfficientNetLiteConfig

CONFIG = DualConfig(
    image=EfficientNetLiteConfig(width=0.25, depth=0.1, stem_width=8, head_width=64),
    text=BertConfig(vocabulary=64, width=96, layers=2, heads=3, mlp_width=128, positions=40),
    preprocessing=Preprocessing(40, "shortest", "bicubic", mean=(127.0, 120.0, 110.0), std=(128.0, 60.0, 70.0)),
    embed_dim=24,
    image_projection=ProjectionConfig(32),
    text_projection=ProjectionConfig(None),
)
FORMATS: dict[str, dict[str, WeightFormat]] = {
    "float32": {},
    "float16": {"*": "float16"},
    "int8": {"*": "int8"},
    "int4": SMALL,
}
_PIECES = ["<s>", "<pad>", "</s>", "<unk>", *"▁abcdefghilmnopqrstuvzàèéìòù'.,:", "▁cane", "▁gatto", "▁un", "▁una"]


@lru_cache
def tiny_table(config: DualConfig = CONFIG) -> dict[str, Array]:
    """Random weights of a dual encoder, normalisations apart."""
    return random_table(nnx.eval_shape(lambda: DualEncoder(config, rngs=nnx.Rngs(0))))


def random_table(module: nnx.Module) -> dict[str, Array]:
    """Random weights for a module of `nnx.eval_shape`, whose initial ones would take seconds to compile.

    No leaf is zero, and no normalisation is the identity.
    """
    rng = np.random.default_rng(0)
    table: dict[str, Array] = {}
    for path, variable in nnx.to_flat_state(nnx.state(module, (nnx.Param, nnx.BatchStat))):
        name, shape = ".".join(map(str, path)), variable.get_value().shape
        if len(shape) > 1:
            values = rng.normal(0, (2 / math.prod(shape[:-1])) ** 0.5, shape)
        else:
            values = rng.normal(1 if name.endswith(("scale", "variance")) else 0, 0.1, shape)
        table[name] = values.transpose(3, 2, 0, 1) if values.ndim == 4 else values
    return {name: values.astype(np.float32) for name, values in table.items()}


def tiny_tokenizer() -> str:
    """A Unigram `tokenizer.json` of multilingual-e5's kind with a few pieces."""
    scores = [[piece, 0.0 if i < 4 else -5.0 + len(piece) / 2] for i, piece in enumerate(_PIECES)]
    special = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    sequence = [
        {"SpecialToken": {"id": "<s>", "type_id": 0}},
        {"Sequence": {"id": "A", "type_id": 0}},
        {"SpecialToken": {"id": "</s>", "type_id": 0}},
    ]
    metaspace = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    return json.dumps({
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": piece, **special} for i, piece in enumerate(_PIECES[:4])],
        "normalizer": {"type": "NFKC"},
        "pre_tokenizer": metaspace,
        "post_processor": {
            "type": "TemplateProcessing",
            "single": sequence,
            "pair": sequence,
            "special_tokens": {
                name: {"id": name, "ids": [_PIECES.index(name)], "tokens": [name]} for name in ("<s>", "</s>")
            },
        },
        "decoder": metaspace,
        "model": {"type": "Unigram", "unk_id": 3, "vocab": scores, "byte_fallback": False},
    })  # fmt: skip


def make_tiny_bundle(folder: Path, formats: str = "int4", config: DualConfig = CONFIG) -> Bundle:
    """Writes a bundle whose weights are stored as `FORMATS[formats]` says."""
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer_file = folder / "source-tokenizer.json"
    tokenizer_file.write_text(tiny_tokenizer(), encoding="utf-8")
    bundle = write_dual_bundle(
        folder,
        tiny_table(config),
        config,
        provenance=Provenance("tiny", "Apache-2.0", "random numbers", "0"),
        storage=Storage("fp32" if formats == "float32" else "int8", FORMATS[formats]),
        tokenizer=TokenizerConfig(max_tokens=32, prefix="query: "),
        tokenizer_file=tokenizer_file,
        logit_scale=20.0,
    )
    tokenizer_file.unlink()
    return bundle
