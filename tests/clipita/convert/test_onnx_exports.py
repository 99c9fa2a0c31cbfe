"""ONNX exports in transformers.js' layout: against ONNX Runtime on the same files."""

import json
import shutil
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from PIL import Image
from support.reference import torch, transformers
from support.tiny_bundle import tiny_tokenizer

import clipita
from clipita.errors import BackendError, CheckpointError

SIZE, WIDTH, LENGTH = 40, 48, 16
TOWER = {"hidden_size": WIDTH, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 64}
TEXT = {**TOWER, "vocab_size": 32, "max_position_embeddings": LENGTH, "eos_token_id": 2, "bos_token_id": 1}
VISION = {**TOWER, "image_size": SIZE, "patch_size": 8}
TEXTS = ["un gatto nero", "una foto di un cane", "mare", "perché un piccolo gatto rosso è in una città blu di mare"]


def export(model: torch.nn.Module, path: Path, inputs: dict[str, torch.Tensor], outputs: list[str]) -> None:
    axes = {name: {0: "batch", 1: "length"} if value.ndim == 2 else {0: "batch"} for name, value in inputs.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the TorchScript exporter is old, and works without another package
        torch.onnx.export(
            model.eval(),
            (inputs,),
            path,
            dynamo=False,
            input_names=[*inputs],
            output_names=outputs,
            dynamic_axes={**axes, outputs[0]: {0: "batch"}},
            opset_version=17,
        )


def write(folder: Path, kind: str) -> Path:
    """A folder as the exporters of transformers.js make it, with random weights."""
    torch.manual_seed(0)
    (folder / "onnx").mkdir(parents=True)
    ids = torch.tensor([[1, 5, 6, 2]])
    pixels = torch.zeros(1, 3, SIZE, SIZE)
    if kind == "clip":
        shared = {"projection_dim": 24}
        config = transformers.CLIPConfig(text_config=TEXT | shared, vision_config=VISION | shared, **shared)
        vision: Any = transformers.CLIPVisionModelWithProjection(config.vision_config)
        text: Any = transformers.CLIPTextModelWithProjection(config.text_config)
        tokens = {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
        outputs = ["image_embeds", "last_hidden_state"], ["text_embeds", "last_hidden_state"]
        processor: Any = transformers.CLIPImageProcessorPil(size={"shortest_edge": SIZE}, crop_size=SIZE)
    else:
        config = transformers.SiglipConfig(text_config=TEXT, vision_config=VISION)
        vision, text = (
            transformers.SiglipVisionModel(config.vision_config),
            transformers.SiglipTextModel(config.text_config),
        )
        tokens = {"input_ids": ids}
        outputs = ["last_hidden_state", "pooler_output"], ["last_hidden_state", "pooler_output"]
        processor = transformers.SiglipImageProcessorPil(size={"height": SIZE, "width": SIZE})
    for model in (vision, text):
        for parameter in model.parameters():  # biases begin at zero, and would hide a mistake
            parameter.data += 0.05 * torch.randn_like(parameter)
    export(vision, folder / "onnx" / "vision_model.onnx", {"pixel_values": pixels}, outputs[0])
    export(text, folder / "onnx" / "text_model.onnx", tokens, outputs[1])
    config.save_pretrained(folder)
    processor.save_pretrained(folder)
    (folder / "tokenizer.json").write_text(tiny_tokenizer().to_str())
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "<pad>"}))
    (folder / "README.md").write_text("---\nlicense: mit\n---\n")
    return folder


@pytest.fixture(scope="module", params=["clip", "siglip"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write(tmp_path_factory.mktemp("exports") / request.param, request.param)


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    return shutil.copytree(folder, tmp_path / folder.name)


def pictures() -> list[Image.Image]:
    random = np.random.default_rng(0)
    return [
        Image.fromarray(random.integers(0, 256, (h, w, 3), dtype=np.uint8)) for h, w in ((50, 40), (41, 97), (9, 7))
    ]


def expected(folder: Path, suffix: str = "") -> tuple[Any, Any]:
    """The embeddings as a user of the files would compute them."""
    is_clip = folder.name == "clip"
    vision, text = (
        onnxruntime.InferenceSession(
            folder / "onnx" / f"{tower}_model{suffix}.onnx", providers=["CPUExecutionProvider"]
        )
        for tower in ("vision", "text")
    )
    (pixels,) = vision.get_inputs()
    processor = (
        transformers.CLIPImageProcessorPil if is_clip else transformers.SiglipImageProcessorPil
    ).from_pretrained(folder)
    values = processor(pictures(), return_tensors="np")["pixel_values"]
    values = values.astype(np.float16 if pixels.type == "tensor(float16)" else np.float32)
    images = vision.run(["image_embeds" if is_clip else "pooler_output"], {"pixel_values": values})[0]
    rows: list[Any] = []
    for sentence in TEXTS:
        ids = tiny_tokenizer().encode(sentence).ids[:LENGTH]
        if not is_clip:
            ids += [0] * (LENGTH - len(ids))
        tokens = {"input_ids": np.array([ids]), "attention_mask": np.ones((1, len(ids)), np.int64)}
        taken = {value.name: tokens[value.name] for value in text.get_inputs()}
        rows.append(text.run(["text_embeds" if is_clip else "pooler_output"], taken)[0][0])
    return tuple(
        x / np.linalg.norm(x, axis=-1, keepdims=True) for x in (images.astype(np.float32), np.array(rows, np.float32))
    )


def check(model: clipita.Model, images: Any, texts: Any, tolerance: float = 1e-5) -> None:
    for given, expected_rows, encode in ((pictures(), images, model.encode_image), (TEXTS, texts, model.encode_text)):
        np.testing.assert_allclose(encode(given), expected_rows, atol=tolerance)
        np.testing.assert_allclose(encode(given[0]), expected_rows[0], atol=tolerance)


def test_embeddings_are_those_of_the_files(folder: Path, tmp_path: Path) -> None:
    model = clipita.load(folder, cache_dir=tmp_path)
    check(model, *expected(folder))
    assert model.license == "mit"
    assert (model.precision, model.image_size, model.max_tokens, model.logit_scale) == ("fp32", SIZE, LENGTH, 100.0)
    assert model.embed_dim == (24 if folder.name == "clip" else WIDTH)
    scores = model.zero_shot(pictures()[0], ["cane", "gatto"])
    assert sum(score for _, score in scores) == pytest.approx(1)
    with pytest.raises(BackendError, match="is an ONNX export, which only backend='onnx' runs"):
        clipita.load(folder, cache_dir=tmp_path, backend="flax")


def test_variants_are_chosen_by_precision(own: Path, tmp_path: Path) -> None:
    from onnxruntime.quantization import QuantType, quantize_dynamic

    for tower in ("vision", "text"):
        source = own / "onnx" / f"{tower}_model.onnx"
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            quantize_dynamic(source, source.with_name(f"{tower}_model_quantized.onnx"), weight_type=QuantType.QUInt8)
            quantize_dynamic(source, source.with_name(f"{tower}_model_q8s.onnx"), weight_type=QuantType.QInt8)
    single = {name: clipita.load(own, precision=name, cache_dir=tmp_path) for name in ("fp32", "int8", "q8s")}
    assert len({model.fingerprint for model in single.values()}) == 3
    for name, suffix in {"fp32": "", "int8": "_quantized", "q8s": "_q8s"}.items():
        # One at a time, as the activations of a batch share their range.
        images, texts = expected(own, suffix)
        np.testing.assert_allclose([single[name].encode_text(text) for text in TEXTS], texts, atol=1e-5)
        if name == "fp32":
            check(single[name], images, texts)
    with pytest.raises(
        CheckpointError, match=r"no ONNX exports of precision 'fp16', but text_model.onnx, text_model_q8s"
    ):
        clipita.load(own, precision="fp16", cache_dir=tmp_path)


def test_half_precision_inputs_are_given_halves(own: Path, tmp_path: Path) -> None:
    for tower in ("vision", "text"):
        model = onnx.load(own / "onnx" / f"{tower}_model.onnx")
        half = to_half(model, tower == "vision")
        onnx.save(half, own / "onnx" / f"{tower}_model_fp16.onnx")
    model = clipita.load(own, precision="fp16", cache_dir=tmp_path)
    check(model, *expected(own, "_fp16"), tolerance=2e-3)
    weights = next((tmp_path / "clipita").rglob("weights.safetensors"))
    header = weights.read_bytes()[8:].split(b"}}")[0]
    assert b"F16" in header
    assert b"F32" not in header


def to_half(model: onnx.ModelProto, has_pixels: bool) -> onnx.ModelProto:
    """Weights in float16, widened where they are used, and pixels that come as float16."""
    nodes = []
    for tensor in model.graph.initializer:
        if tensor.data_type == onnx.TensorProto.FLOAT:
            values = onnx.numpy_helper.to_array(tensor).astype(np.float16)
            name = tensor.name
            tensor.CopyFrom(onnx.numpy_helper.from_array(values, f"{name}_half"))
            nodes.append(onnx.helper.make_node("Cast", [f"{name}_half"], [name], to=onnx.TensorProto.FLOAT))
    if has_pixels:
        model.graph.input[0].name = "wide"
        for node in model.graph.node:
            for index, name in enumerate(node.input):
                node.input[index] = "wide" if name == "pixel_values" else name
        nodes.append(onnx.helper.make_node("Cast", ["pixel_values"], ["wide"], to=onnx.TensorProto.FLOAT))
        shape = ["batch", 3, SIZE, SIZE]
        value = onnx.helper.make_tensor_value_info("pixel_values", onnx.TensorProto.FLOAT16, shape)
        model.graph.input[0].CopyFrom(value)
    others = list(model.graph.node)
    del model.graph.node[:]
    model.graph.node.extend([*nodes, *others])
    return model


def externalise(folder: Path, tower: str, location: str) -> None:
    path = folder / "onnx" / f"{tower}_model.onnx"
    model = onnx.load(path)
    onnx.save(model, path, save_as_external_data=True, location=f"{tower}_model.onnx_data", size_threshold=0)
    if location != f"{tower}_model.onnx_data":
        model = onnx.load(path, load_external_data=False)
        for tensor in model.graph.initializer:
            for entry in tensor.external_data:
                if entry.key == "location":
                    entry.value = location
        onnx.save(model, path)


def test_weights_beside_the_graph_are_read(own: Path, folder: Path, tmp_path: Path) -> None:
    for tower in ("vision", "text"):
        externalise(own, tower, f"{tower}_model.onnx_data")
    model = clipita.load(own, cache_dir=tmp_path)
    check(model, *expected(folder))
    assert model.fingerprint == clipita.load(folder, cache_dir=tmp_path).fingerprint


@pytest.mark.parametrize(
    ("location", "message"),
    [
        ("../../outside", "outside"),
        ("/etc/passwd", "outside"),
        ("absent.onnx_data", "not there"),
        ("link.onnx_data", "outside its folder"),
        ("short.onnx_data", "reaches beyond the 4 bytes"),
    ],
)
def test_weights_elsewhere_are_refused(own: Path, tmp_path: Path, location: str, message: str) -> None:
    (tmp_path / "outside").write_bytes(bytes(1 << 20))
    (own / "onnx" / "link.onnx_data").symlink_to(tmp_path / "outside")
    (own / "onnx" / "short.onnx_data").write_bytes(b"1234")
    externalise(own, "text", location)
    with pytest.raises(CheckpointError, match=message):
        clipita.load(own, cache_dir=tmp_path)


def test_graphs_of_another_kind_are_refused(own: Path, tmp_path: Path) -> None:
    path = own / "onnx" / "vision_model.onnx"
    model = onnx.load(path)
    model.graph.input[0].name = "images"
    onnx.save(model, path)
    with pytest.raises(CheckpointError, match=r"image tower takes \['images'\]; only \['pixel_values'\] is known"):
        clipita.load(own, cache_dir=tmp_path)
    path.write_bytes(b"no graph at all")
    with pytest.raises(CheckpointError, match=r"vision_model\.onnx"):
        clipita.load(own, cache_dir=tmp_path)
    (own / "config.json").write_text(json.dumps({"model_type": "bert"}))
    shutil.copy(own / "onnx" / "text_model.onnx", path)
    with pytest.raises(CheckpointError, match="are of model_type 'bert'"):
        clipita.load(own, cache_dir=tmp_path)
