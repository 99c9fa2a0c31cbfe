"""Checkpoints of other libraries: every leaf used or named, settings followed or refused, scales, the way back."""

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file
from support import oracles
from support.oracles import ORACLES, SIZE, Oracle, pixels, texts
from support.reference import torch, transformers
from support.tiny import CONFIG, tiny_table

from clipita.convert.layouts.checkpoint import detect_layout, read_checkpoint, read_dual
from clipita.convert.layouts.efficientnet_lite import fold_batch_norm
from clipita.convert.layouts.to_vision_text import to_vision_text_dual_encoder
from clipita.errors import CheckpointError
from clipita.towers.config import ClipTextConfig
from clipita.towers.shapes import parameter_shapes
from clipita.zero_shot import probabilities

STRICT = {
    "VisionTextDualEncoder, BERT x CLIP": "model.safetensors",
    "VisionTextDualEncoder, RoBERTa x ViT": "model.safetensors",
    "CLIP, end by eos_token_id": "model.safetensors",
    "SigLIP": "model.safetensors",
    "OpenCLIP, XLM-R base, mean, mlp": "open_clip_model.safetensors",
    "OpenCLIP, NLLB-SigLIP": "open_clip_model.safetensors",
    "OpenCLIP, CLIP": "open_clip_model.safetensors",
    "mCLIP, image half of transformers": "model.safetensors",
}
# Of OpenCLIP's files these tell how many words and positions there are, and how wide the tower is.
FREE = re.compile(
    r"text\.transformer\.(embeddings\.\w+_embeddings|embed_tokens)\.weight|visual\.trunk\.patch_embed\.proj\.weight"
)


@pytest.mark.slow
@pytest.mark.parametrize("layout", STRICT)
def test_every_leaf_counts(layout: str, tmp_path: Path) -> None:
    oracle = ORACLES[layout](tmp_path / "checkpoint")
    path = oracle.folder / STRICT[layout]
    leaves = load_file(path)

    def refused(changed: dict[str, np.ndarray], name: str, otherwise: str = "^$") -> None:
        save_file(changed, path)
        with pytest.raises(CheckpointError, match=f"{re.escape(repr(name))}|{otherwise}"):
            read_dual(oracle.folder, images=oracle.images)

    for name, values in leaves.items():
        refused({other: kept for other, kept in leaves.items() if other != name}, name)
        if values.size > 1 and not FREE.fullmatch(name):
            refused(leaves | {name: np.concatenate([values, values])}, name, "mlp_in")
    refused(leaves | {"text_model.extra.weight": np.zeros(3, np.float32)}, "text_model.extra.weight")
    name = next(name for name, values in leaves.items() if values.ndim == 2)
    refused(leaves | {name: leaves[name].astype(np.int32)}, name)
    save_file(leaves, path)
    read = read_dual(oracle.folder, images=oracle.images)
    assert {name: values.shape for name, values in read.weights.items()} == parameter_shapes(read.config)


def test_shapes_of_the_towers_of_our_own() -> None:
    assert {name: values.shape for name, values in fold_batch_norm(tiny_table()).items()} == parameter_shapes(CONFIG)


def test_weights_are_views_of_the_file(tmp_path: Path) -> None:
    read = read_dual(oracles.clip(tmp_path / "clip").folder)
    assert not any(values.flags.owndata or values.flags.writeable for values in read.weights.values())


def edit(oracle: Oracle, change: Callable[[dict[str, Any]], Any], name: str = "config.json") -> Path:
    values = json.loads((oracle.folder / name).read_text())
    change(values)
    (oracle.folder / name).write_text(json.dumps(values))
    return oracle.folder


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["text_config"].update(hidden_act="swiglu"), "'hidden_act' must be one of gelu"),
        (lambda c: c["text_config"].update(num_hidden_layers="2"), "'num_hidden_layers' must be a whole number"),
        (lambda c: c["text_config"].update(layer_norm_eps="tiny"), "'layer_norm_eps' must be a number"),
        (lambda c: c["text_config"].update(model_type="gpt2"), "'model_type' must be one of bert"),
        (lambda c: c["text_config"].update(position_embedding_type="relative_key"), "must be 'absolute'"),
        (lambda c: c["vision_config"].update(num_channels=1), "'num_channels' must be 3"),
        (lambda c: c["vision_config"].update(image_size=[40, 48]), "the side of a square"),
        (lambda c: c["vision_config"].update(model_type="resnet"), "for an image tower"),
        (lambda c: c["vision_config"].update(image_size=48), "'vision_model.embeddings.position_embedding.weight'"),
        (lambda c: c["vision_config"].update(num_attention_heads=5), "48 and 5 heads"),
        (lambda c: c["text_config"].update(num_attention_heads=0), "36 and 0 heads"),
        (lambda c: c["text_config"].update(num_hidden_layers=10**9), "1000000000 layers"),
        (lambda c: c["text_config"].update(model_type="m2m_100"), "'model_type' must be one of bert"),
        (lambda c: c.update(text_config=3), "'text_config' must be an object"),
        (lambda c: c.update(projection_dim=25), "by what the configuration says"),
    ],
)
def test_settings_that_are_not_followed_are_refused(tmp_path: Path, change, message: str) -> None:
    oracle = oracles.vision_text(tmp_path / "checkpoint", "bert", "clip")
    with pytest.raises(CheckpointError, match=message):
        read_dual(edit(oracle, change))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["text_cfg"].update(hf_model_name="google/mt5-base"), "one of xlm-roberta-base"),
        (lambda c: c["text_cfg"].update(hf_pooler_type="max_pooler"), "one of 'mean_pooler'"),
        (lambda c: c["vision_cfg"].update(timm_model_name="convnext_base"), "timm's SigLIP towers"),
        (lambda c: c["vision_cfg"].update(ls_init_value=1e-5), "'ls_init_value' must be None"),
        (lambda c: c["vision_cfg"].update(pool_type="none"), "one of 'tok', 'avg'"),
        (lambda c: c["text_cfg"].update(tokenizer_kwargs={"clean": "shout"}), "one of 'whitespace'"),
    ],
)
def test_settings_of_open_clip_that_are_not_followed_are_refused(tmp_path: Path, change, message: str) -> None:
    oracle = oracles.open_clip_xlm_r(tmp_path / "checkpoint", "base", "mean_pooler", None)
    with pytest.raises(CheckpointError, match=message):
        read_dual(edit(oracle, lambda c: change(c["model_cfg"]), "open_clip_config.json"))


def test_layouts_are_told_apart(tmp_path: Path) -> None:
    assert detect_layout(tmp_path) is None
    with pytest.raises(CheckpointError, match=r"it has no config\.json"):
        read_dual(tmp_path)
    (tmp_path / "config.json").write_text('{"model_type": "siglip2"}')
    with pytest.raises(CheckpointError, match="'model_type': 'siglip2'"):
        read_dual(tmp_path)
    for kind, layout in [("vision-text-dual-encoder", "vision-text"), ("hybrid-clip", "hybrid-clip"), ("clip", "clip")]:
        (tmp_path / "config.json").write_text(json.dumps({"model_type": kind}))
        assert detect_layout(tmp_path) == layout
    (tmp_path / "open_clip_config.json").write_text("{}")
    assert detect_layout(tmp_path) == "open-clip"  # the weights say in which form a model is here
    (tmp_path / "model.safetensors").touch()
    assert detect_layout(tmp_path) == "clip"
    (tmp_path / "config.json").unlink()
    assert detect_layout(tmp_path) == "open-clip"
    (tmp_path / "modules.json").write_text("[]")
    assert detect_layout(tmp_path) == "sentence-transformers"
    for modules, message in [
        ("[]", "lists no module"),
        ("{", "not a list of modules"),
        ('[{"type": "x"}]', "KeyError"),
    ]:
        (tmp_path / "modules.json").write_text(modules)
        with pytest.raises(CheckpointError, match=message):
            read_dual(tmp_path)
    for kinds in (["Transformer"], ["Transformer", "Pooling", "Dense", "Dense"], ["CLIPModel", "Dense"]):
        modules = json.dumps([{"type": f"models.{kind}", "path": ""} for kind in kinds])
        (tmp_path / "modules.json").write_text(modules)
        with pytest.raises(CheckpointError, match=f"has the modules {', '.join(kinds)}; expected CLIPModel"):
            read_dual(tmp_path)


def test_a_distilbert_without_pooling_is_refused_here_as_there(tmp_path: Path) -> None:
    model = oracles.vision_text_model("distilbert", "clip")
    with pytest.raises(AttributeError, match="pooler_output"):
        model.get_text_features(input_ids=torch.ones(1, 3, dtype=torch.long))
    model.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="DistilBERT has no pooled output"):
        read_dual(tmp_path)


def test_the_halves_of_a_pair(tmp_path: Path) -> None:
    oracle = oracles.sentence_transformers_pair(tmp_path / "pair", nested=True)
    with pytest.raises(CheckpointError, match="text half of a pair"):
        read_dual(oracle.folder)
    with pytest.raises(CheckpointError, match="no image tower"):
        read_dual(oracle.folder, images=oracle.folder)
    apart = read_dual(oracle.folder, images=oracle.images)
    assert oracle.images is not None
    oracle.images.rename(oracle.folder / "clip-ViT-B-32")
    together = read_dual(oracle.folder)
    assert together.config == apart.config
    assert together.logit_scale == apart.logit_scale
    whole = read_dual(oracle.folder / "clip-ViT-B-32")  # a CLIP by itself
    assert isinstance(whole.config.text, ClipTextConfig)
    (oracle.folder / "sentence_bert_config.json").write_text('{"max_seq_length": 20, "do_lower_case": false}')
    old = {f"pooling_mode_{name}": name == "mean_tokens" for name in ("cls_token", "mean_tokens", "max_tokens")}
    (oracle.folder / "1_Pooling/config.json").write_text(json.dumps(old | {"word_embedding_dimension": 36}))
    assert read_dual(oracle.folder).texts.max_tokens == 20
    for change, message in [
        ({"pooling_mode_max_tokens": True}, "pools by"),
        ({"pooling_mode_mean_tokens": False}, r"pools by \[\]"),
    ]:
        (oracle.folder / "1_Pooling/config.json").write_text(json.dumps(old | change))
        with pytest.raises(CheckpointError, match=message):
            read_dual(oracle.folder)


def test_a_checkpoint_with_its_tokenizer(tmp_path: Path) -> None:
    folder = oracles.vision_text(tmp_path / "checkpoint", "bert", "clip").folder
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "un", "gatto", "nero", "##e"]
    (folder / "vocab.txt").write_text("\n".join(words))
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "model_max_length": 20}')
    checkpoint = read_checkpoint(folder)
    assert checkpoint.layout == "vision-text"
    assert checkpoint.tokenizer.max_tokens == 20
    assert "gatto" in checkpoint.tokenizer_json
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "BertTokenizer", "padding_side": "left"}')
    with pytest.raises(CheckpointError, match="pads its texts at the start"):
        read_checkpoint(folder)


def test_siglip_2_reads_lower_case(tmp_path: Path) -> None:
    folder = oracles.siglip(tmp_path / "checkpoint").folder
    assert read_dual(folder).texts[1:4] == (oracles.POSITIONS, True, False)
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "GemmaTokenizer"}')
    assert read_dual(folder).texts[1:4] == (oracles.POSITIONS, True, True)


def test_pixels_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = oracles.clip(tmp_path / "checkpoint").folder
    (folder / "preprocessor_config.json").write_text('{"size": {"shortest_edge": 64}, "crop_size": 64}')
    with pytest.raises(CheckpointError, match=f"{SIZE} x {SIZE} pixels, and the preprocessing gives 64"):
        read_dual(folder)


def written_with_scale(folder: Path, text: str, vision: str, leaf: float) -> Path:
    model = oracles.vision_text_model(text, vision)
    model.logit_scale.data.fill_(leaf)
    model.save_pretrained(folder)
    return folder


def test_the_scale_of_clip_italian(tmp_path: Path) -> None:
    """Its leaf is 1.0, its training multiplied by 20, and transformers would multiply by e."""
    trained = oracles.hybrid_clip(tmp_path / "trained", logit_scale=1.0).folder
    published = written_with_scale(tmp_path / "published", "bert", "clip", 1.0)
    assert read_dual(trained).logit_scale == read_dual(published).logit_scale == 20.0
    cosines = np.array([0.45193, 0.11419], np.float32)  # of the two cats with "gatto" and "cane"
    photograph, labels = np.ones((1, 1), np.float32), cosines[:, None]
    assert probabilities(photograph @ labels.T, read_dual(published).logit_scale)[0] == pytest.approx(
        [0.999, 0.001], abs=5e-4
    )


@pytest.mark.parametrize(
    ("text", "vision", "leaf"), [("bert", "clip", 1.0000001), ("bert", "clip", 2.6592), ("bert", "vit", 1.0)]
)
def test_other_scales_are_logarithms(tmp_path: Path, text: str, vision: str, leaf: float) -> None:
    folder = written_with_scale(tmp_path / "checkpoint", text, vision, leaf)
    assert read_dual(folder).logit_scale == pytest.approx(math.exp(leaf), rel=1e-6)


@pytest.mark.parametrize("leaf", [math.nan, math.inf, 30.0])
def test_scales_without_sense_are_refused(tmp_path: Path, leaf: float) -> None:
    with pytest.raises(CheckpointError, match="logit_scale"):
        read_dual(written_with_scale(tmp_path / "checkpoint", "bert", "clip", leaf))


BACK = {
    "BERT x CLIP": lambda folder: oracles.vision_text_4(folder, "bert", "clip"),
    "XLM-R x SigLIP": lambda folder: oracles.vision_text(folder, "xlm-roberta", "siglip"),
    "RoBERTa x ViT": lambda folder: oracles.vision_text(folder, "roberta", "vit"),
    "hybrid-clip": oracles.hybrid_clip,
    "CLIP": oracles.clip,
    "CLIP with the old end": lambda folder: oracles.clip(folder, eos=2),
}


@pytest.mark.parametrize("name", BACK)
def test_transformers_loads_what_is_written_back(name: str, tmp_path: Path) -> None:
    oracle = BACK[name](tmp_path / "checkpoint")
    read = read_dual(oracle.folder)
    config, tensors = to_vision_text_dual_encoder(read.config, read.weights, read.logit_scale)
    folder = tmp_path / "back"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    model, report = transformers.VisionTextDualEncoderModel.from_pretrained(folder, output_loading_info=True)
    assert not any(report[key] for key in ("missing_keys", "unexpected_keys", "mismatched_keys"))

    images, (ids, mask) = pixels(3), texts(oracle, 4)
    mean, std = (
        (oracles.HALF, oracles.HALF) if "x" in name and "CLIP" not in name else (oracles.CLIP_MEAN, oracles.CLIP_STD)
    )
    with torch.no_grad():
        logits = model.eval()(
            input_ids=torch.from_numpy(ids),
            attention_mask=torch.from_numpy(mask),
            pixel_values=oracles.values_of(images, mean, std),
        ).logits_per_image
    expected = oracle.logit_scale * oracle.image(images) @ oracle.text(ids, mask).T
    np.testing.assert_allclose(logits.numpy(), expected, atol=1e-4)
    again = read_dual(folder)
    assert again.logit_scale == pytest.approx(read.logit_scale, rel=1e-6)


def test_clip_italian_written_back_says_what_it_means(tmp_path: Path) -> None:
    read = read_dual(oracles.hybrid_clip(tmp_path / "trained", logit_scale=1.0).folder)
    _, tensors = to_vision_text_dual_encoder(read.config, read.weights, read.logit_scale)
    assert float(tensors["logit_scale"]) == pytest.approx(2.9957, abs=1e-4)


@pytest.mark.parametrize("layout", ["SigLIP", "mCLIP, image half of transformers", "OpenCLIP, XLM-R base, mean, mlp"])
def test_what_cannot_be_written_back_says_so(layout: str, tmp_path: Path) -> None:
    oracle = ORACLES[layout](tmp_path / "checkpoint")
    read = read_dual(oracle.folder, images=oracle.images)
    with pytest.raises(CheckpointError, match="cannot be written as a VisionTextDualEncoder"):
        to_vision_text_dual_encoder(read.config, read.weights, read.logit_scale)


def test_our_own_towers_cannot_be_written_back() -> None:
    pooled = replace(CONFIG, text=replace(CONFIG.text, pooling="pooler"))
    for config, message in [(CONFIG, "pools in another way"), (pooled, "no vision transformer")]:
        with pytest.raises(CheckpointError, match=message):
            to_vision_text_dual_encoder(config, tiny_table(), 20.0)


@pytest.mark.hub
def test_the_two_cats(tmp_path: Path) -> None:
    """The published weights on the photograph of transformers' own integration test."""
    import urllib.request

    import clipita

    photograph = tmp_path / "cats.jpg"
    urllib.request.urlretrieve("http://images.cocodataset.org/val2017/000000039769.jpg", photograph)
    model = clipita.load("clip-italian/clip-italian")
    labels = ["una foto di un gatto", "una foto di un cane"]
    cosines = model.encode_text(labels) @ model.encode_image(photograph)
    np.testing.assert_allclose(cosines, [0.45193, 0.11419], atol=1e-3)
    cat, dog = model.zero_shot(photograph, labels, templates="{}")
    assert (cat.label, round(cat.score, 3), round(dog.score, 3)) == (labels[0], 0.999, 0.001)
