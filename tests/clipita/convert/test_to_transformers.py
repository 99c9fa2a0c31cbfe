"""The way back: what transformers makes of a model that clipita wrote."""

from pathlib import Path

import numpy as np
import pytest
from support.oracles import ORACLES
from support.reference import torch, transformers
from support.written_checkpoints import TEXTS, written_as

import clipita
from clipita.errors import CheckpointError


def pictures() -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.integers(0, 256, shape, dtype=np.uint8) for shape in ((40, 40, 3), (57, 40, 3), (41, 90, 3))]


@pytest.mark.parametrize(
    "layout",
    [
        "the same of transformers 4, BERT x CLIP",
        "VisionTextDualEncoder, RoBERTa x ViT",
        "VisionTextDualEncoder, XLM-R x SigLIP",
        "hybrid-clip",
        "CLIP, end by eos_token_id",
    ],
)
def test_transformers_gives_the_same_logits(layout: str, tmp_path: Path) -> None:
    oracle = written_as(ORACLES[layout], tmp_path / "checkpoint")
    model = clipita.load(oracle.folder, cache_dir=tmp_path)
    model.save_pretrained_hf(tmp_path / "hf")

    theirs = transformers.VisionTextDualEncoderModel.from_pretrained(tmp_path / "hf").eval()
    assert theirs.logit_scale.item() == pytest.approx(np.log(model.logit_scale), rel=1e-6)
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path / "hf", backend="pil")
    with torch.no_grad():
        # One at a time: transformers finds the end of a CLIP's text by its own rules where there is padding.
        rows = [
            theirs(
                **processor(pictures(), return_tensors="pt"),
                **tokenizer(text, return_tensors="pt", return_token_type_ids=False),
            ).logits_per_text[0]
            for text in TEXTS
        ]
    expected = model.logit_scale * model.encode_text(TEXTS) @ model.encode_image(pictures()).T
    np.testing.assert_allclose(np.array(rows), expected, atol=2e-4)

    again = clipita.load(tmp_path / "hf", cache_dir=tmp_path)
    np.testing.assert_allclose(again.encode_text(TEXTS), model.encode_text(TEXTS), atol=1e-6)
    np.testing.assert_allclose(again.encode_image(pictures()), model.encode_image(pictures()), atol=1e-6)
    assert again.logit_scale == pytest.approx(model.logit_scale, rel=1e-6)
    assert again.license == model.license


def test_models_that_have_no_counterpart_are_refused(tmp_path: Path) -> None:
    def refuses(model: clipita.Model, message: str) -> None:
        with pytest.raises(CheckpointError, match=message):
            model.save_pretrained_hf(tmp_path / "hf")
        assert not (tmp_path / "hf").exists()

    refuses(clipita.load(), "cannot be written as a VisionTextDualEncoder: its text tower pools")
    for layout, message in {
        "SigLIP": "has no place for its logit_bias",
        "OpenCLIP, XLM-R base, mean, mlp": "cannot be written as a VisionTextDualEncoder: its text tower pools",
    }.items():
        oracle = written_as(ORACLES[layout], tmp_path / layout)
        refuses(clipita.load(oracle.folder, cache_dir=tmp_path), message)
    spelled = written_as(ORACLES["CLIP, end by eos_token_id"], tmp_path / "clip")
    model = clipita.load(spelled.folder, cache_dir=tmp_path)
    model._bundle.config.text["tokenizer"]["prefix"] = "query: "
    refuses(model, "reads texts by rules that a tokenizer of transformers does not have")
