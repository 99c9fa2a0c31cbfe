"""Backbones written by transformers, one tower a folder, against what transformers computes with them."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from clipita_train.pairs.recipe import ImageBackbone, TextBackbone
from clipita_train.towers.backbones import read_image_tower, read_text_tower
from flax import nnx
from support.oracles import POSITIONS, SIZE, TEXT, VISION, _randomised, values_of
from support.reference import torch, transformers

from clipita.errors import CheckpointError
from clipita.towers.config import BertConfig, DualConfig, VitConfig
from clipita.towers.dual import DualEncoder
from clipita.towers.parameters import set_parameters

pytestmark = pytest.mark.slow

WORDS = [
    "[PAD]",
    "[UNK]",
    "[CLS]",
    "[SEP]",
    "[MASK]",
    *"abcdefghilmnopqrstuvz",
    *(f"##{c}" for c in "abcdefghilmnopqrstuvz"),
]
SMALL_TEXT = {**TEXT, "vocab_size": len(WORDS)}
ROBERTA = {**SMALL_TEXT, "layer_norm_eps": 1e-5, "type_vocab_size": 1, "max_position_embeddings": POSITIONS + 2}


def saved(model: torch.nn.Module, folder: Path) -> Path:
    _randomised(model).save_pretrained(folder)
    (folder / "vocab.txt").write_text("\n".join(WORDS))
    return folder


def text_features(found, ids: np.ndarray, mask: np.ndarray) -> np.ndarray:
    other = VitConfig(8, 16, 1, 1, 16, "gelu", 1e-5, False, False, False, "mean")
    pixels = read_preprocessing()
    config = DualConfig(other, found.config, pixels, embed_dim=4)
    model = DualEncoder(config, rngs=nnx.Rngs(0))
    set_parameters(model.text, found.weights)
    return np.asarray(model.text_features(ids.astype(np.int32), mask.astype(np.int32)))


def read_preprocessing():
    from clipita.convert.layouts.dual import half_preprocessing

    return half_preprocessing(16, "bicubic")


def inputs() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    mask = (np.arange(12) < np.array([[12], [5]])).astype(np.int64)
    return np.where(mask == 1, rng.integers(5, len(WORDS), mask.shape), 0), mask


BERTS = {
    "BertModel": lambda: transformers.BertModel(transformers.BertConfig(**SMALL_TEXT)),
    "BertForPreTraining": lambda: transformers.BertForPreTraining(transformers.BertConfig(**SMALL_TEXT)),
    "BertForMaskedLM": lambda: transformers.BertForMaskedLM(transformers.BertConfig(**SMALL_TEXT)),
    "DistilBertForMaskedLM": lambda: transformers.DistilBertForMaskedLM(
        transformers.DistilBertConfig(
            vocab_size=len(WORDS), max_position_embeddings=POSITIONS, dim=36, hidden_dim=72, n_layers=2, n_heads=3
        )
    ),
    "RobertaForMaskedLM": lambda: transformers.RobertaForMaskedLM(transformers.RobertaConfig(**ROBERTA)),
}


@pytest.mark.parametrize("kind", list(BERTS))
@pytest.mark.parametrize("pooling", ["pooler", "mean"])
def test_text_towers_give_what_transformers_gives(kind, pooling, tmp_path):
    model = BERTS[kind]()
    folder = saved(model, tmp_path / "text")
    choice = TextBackbone(str(folder), pooling=pooling)
    inner = next((part for name, part in model.named_children() if name in ("bert", "roberta", "distilbert")), model)
    if pooling == "pooler" and getattr(inner, "pooler", None) is None:
        without = r"has no 'pooler\.dense\..*name text\.pooling, 'mean' or 'cls'|a DistilBERT has no pooled output"
        with pytest.raises(CheckpointError, match=without):
            read_text_tower(choice)
        return
    found = read_text_tower(choice)
    ids, mask = inputs()
    if "Roberta" in kind:
        ids = np.where(mask == 1, ids, 1)  # its padding, from which positions are counted
    with torch.no_grad():
        theirs = inner(input_ids=torch.from_numpy(ids), attention_mask=torch.from_numpy(mask))
    last, weights = theirs.last_hidden_state.numpy(), mask[..., None]
    expected = theirs.pooler_output.numpy() if pooling == "pooler" else (last * weights).sum(1) / weights.sum(1)
    np.testing.assert_allclose(text_features(found, ids, mask), expected, atol=2e-5)
    assert isinstance(found.config, BertConfig)
    assert found.tokenizer.max_tokens == POSITIONS


IMAGES = {
    "ViTModel": lambda: transformers.ViTModel(transformers.ViTConfig(**VISION)),
    "ViTForImageClassification": lambda: transformers.ViTForImageClassification(transformers.ViTConfig(**VISION)),
    "CLIPVisionModel": lambda: transformers.CLIPVisionModel(transformers.CLIPVisionConfig(**VISION)),
    "SiglipVisionModel": lambda: transformers.SiglipVisionModel(transformers.SiglipVisionConfig(**VISION)),
}


@pytest.mark.parametrize("kind", list(IMAGES))
def test_image_towers_give_what_transformers_gives(kind, tmp_path):
    model = IMAGES[kind]()
    found = read_image_tower(ImageBackbone(str(saved(model, tmp_path / "image"))))
    assert found.preprocessing.image_size == SIZE
    other = BertConfig(8, width=8, layers=1, heads=1, mlp_width=8, positions=8)
    encoder = DualEncoder(DualConfig(found.config, other, found.preprocessing, embed_dim=4), rngs=nnx.Rngs(0))
    set_parameters(encoder.image, found.weights)
    pixels = np.random.default_rng(0).integers(0, 256, (2, SIZE, SIZE, 3)).astype(np.uint8)
    mean, std = (tuple(v / 255 for v in values) for values in (found.preprocessing.mean, found.preprocessing.std))
    with torch.no_grad():
        theirs = getattr(model, "vit", model)(values_of(pixels, mean, std))
    pooled = theirs.last_hidden_state[:, 0] if "Classification" in kind else theirs.pooler_output
    np.testing.assert_allclose(encoder.image_features(pixels), pooled.numpy(), atol=5e-5)


def test_a_leaf_that_no_tower_uses_and_a_wrong_size_are_named(tmp_path):
    folder = saved(BERTS["BertModel"](), tmp_path / "text")
    config = (folder / "config.json").read_text()
    (folder / "config.json").write_text(config.replace('"num_hidden_layers": 2', '"num_hidden_layers": 1'))
    with pytest.raises(CheckpointError, match=r"weights that its architecture does not use: .*encoder\.layer\.1"):
        read_text_tower(TextBackbone(str(folder)))
    (folder / "config.json").write_text(config.replace('"hidden_size": 36', '"hidden_size": 48'))
    with pytest.raises(CheckpointError, match="of another model"):
        read_text_tower(TextBackbone(str(folder)))
    image = saved(IMAGES["ViTModel"](), tmp_path / "image")
    with pytest.raises(CheckpointError, match=rf"reads images of {SIZE} x {SIZE} pixels.*but the recipe asks for 64"):
        read_image_tower(ImageBackbone(str(image), size=64))


def test_the_first_layers_alone(tmp_path):
    model = BERTS["BertModel"]()
    folder = str(saved(model, tmp_path / "text"))
    found = read_text_tower(TextBackbone(folder, pooling="mean", layers=1))
    ids, mask = inputs()
    with torch.no_grad():
        theirs = model(torch.from_numpy(ids), torch.from_numpy(mask), output_hidden_states=True).hidden_states[1]
    weights = mask[..., None]
    np.testing.assert_allclose(
        text_features(found, ids, mask), (theirs.numpy() * weights).sum(1) / weights.sum(1), atol=2e-5
    )
    with pytest.raises(CheckpointError, match="has 2 layers, but the recipe keeps the first 3"):
        read_text_tower(TextBackbone(folder, layers=3))


def test_the_packaged_towers_at_any_size():
    found = read_image_tower(ImageBackbone("efficientnet-lite0", size=96))
    assert found.preprocessing.image_size == 96
    assert any(name.endswith(".mean") for name in found.weights)  # normalisations apart, as they are trained
    text = read_text_tower(TextBackbone("multilingual-e5-small", max_tokens=24, frequent_words=200))
    assert text.config.positions == 24 == text.tokenizer.max_tokens
    assert text.config.vocabulary == len(text.weights["word.embedding"]) < 5000
    assert dataclasses.asdict(text.tokenizer)["prefix"] == "query: "
