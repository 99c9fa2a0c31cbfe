"""A tiny bundle: real graphs, a real tokenizer, real files, and weights that take a millisecond to run."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import onnx
import pytest
import tokenizers
from click.testing import CliRunner, Result
from onnx import TensorProto, helper
from PIL import Image
from safetensors.numpy import save as save_safetensors
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from clipita.bundles.bundle import BundleConfig, Graphs, write_bundle
from clipita.cli.main import main
from clipita.text.tokenizer import TokenizerConfig

# A loaded machine is no failure: examples have no time limit.
hypothesis.settings.register_profile("clipita", deadline=None)
hypothesis.settings.load_profile("clipita")

SIZE, EMBED_DIM = 8, 32
WORDS = [
    "query:",
    "un",
    "una",
    "foto",
    "di",
    "cane",
    "gatto",
    "nero",
    "perché",
    "città",
    "rosso",
    "blu",
    "piccolo",
    "mare",
]
VOCABULARY = ["<pad>", "<s>", "</s>", "<unk>", *WORDS]


def tiny_tokenizer() -> tokenizers.Tokenizer:
    tokenizer = tokenizers.Tokenizer(WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token="<unk>"))
    tokenizer.normalizer = Lowercase()
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 1), ("</s>", 2)])
    return tokenizer


def tiny_config(**changes: object) -> BundleConfig:
    fields: dict[str, object] = {
        "name": "tiny",
        "license": "Apache-2.0",
        "source": "made for the tests",
        "revision": "1",
        "embed_dim": EMBED_DIM,
        "logit_scale": 20.0,
        "logit_bias": None,
        "templates": ("una foto di {}",),
        "image": {
            "kind": "linear",
            "preprocessing": {
                "image_size": SIZE,
                "resize": "shortest",
                "interpolation": "bicubic",
                "mean": [127.0, 127.0, 127.0],
                "std": [128.0, 128.0, 128.0],
            },
        },
        "text": {"kind": "bag", "tokenizer": TokenizerConfig(max_tokens=12, prefix="query: ").to_dict()},
        "image_projection": {"hidden": None},
        "text_projection": {"hidden": None},
        "precisions": {"fp32": Graphs("image.onnx", "text.onnx")},
        "recommended_precision": "fp32",
    }
    return BundleConfig(**{**fields, **changes})  # type: ignore[arg-type]


def tiny_files(seed: int = 0) -> dict[str, bytes]:
    random = np.random.default_rng(seed)
    weights = {
        "image": random.standard_normal((SIZE * SIZE * 3, EMBED_DIM), dtype=np.float32),
        "text": random.standard_normal((len(VOCABULARY), EMBED_DIM), dtype=np.float32),
    }
    stored = save_safetensors(weights)
    header_size = int.from_bytes(stored[:8], "little")
    header = json.loads(stored[8 : 8 + header_size])

    def external(name: str) -> onnx.TensorProto:
        start, end = header[name]["data_offsets"]
        tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=weights[name].shape)
        tensor.data_location = TensorProto.EXTERNAL
        places = {"location": "weights.safetensors", "offset": 8 + header_size + start, "length": end - start}
        for key, value in places.items():
            tensor.external_data.add(key=key, value=str(value))
        return tensor

    def small(name: str, values: list[int] | list[float], dtype: type) -> onnx.TensorProto:
        return onnx.numpy_helper.from_array(np.array(values, dtype), name)

    def graph(
        nodes: list[onnx.NodeProto],
        inputs: dict[str, tuple[int, list[object]]],
        output: str,
        tensors: list[onnx.TensorProto],
    ) -> bytes:
        made = helper.make_graph(
            nodes,
            "tiny",
            [helper.make_tensor_value_info(name, kind, shape) for name, (kind, shape) in inputs.items()],
            [helper.make_tensor_value_info(output, TensorProto.FLOAT, ["B", EMBED_DIM])],
            tensors,
        )
        return helper.make_model(made, ir_version=10, opset_imports=[helper.make_opsetid("", 20)]).SerializeToString()

    image = graph(
        [
            helper.make_node("Cast", ["pixels"], ["float"], to=TensorProto.FLOAT),
            helper.make_node("Sub", ["float", "mean"], ["centred"]),
            helper.make_node("Div", ["centred", "std"], ["scaled"]),
            helper.make_node("Flatten", ["scaled"], ["flat"]),
            helper.make_node("MatMul", ["flat", "image"], ["projected"]),
            helper.make_node("LpNormalization", ["projected"], ["image_embeddings"], axis=-1, p=2),
        ],
        {"pixels": (TensorProto.UINT8, ["B", SIZE, SIZE, 3])},
        "image_embeddings",
        [external("image"), small("mean", [127.0] * 3, np.float32), small("std", [128.0] * 3, np.float32)],
    )
    text = graph(
        [
            helper.make_node("Gather", ["text", "input_ids"], ["tokens"]),  # (B, L, E)
            helper.make_node("Cast", ["attention_mask"], ["mask"], to=TensorProto.FLOAT),
            helper.make_node("Unsqueeze", ["mask", "last"], ["mask_column"]),
            helper.make_node("Mul", ["tokens", "mask_column"], ["read"]),
            helper.make_node("ReduceSum", ["read", "middle"], ["summed"], keepdims=0),
            helper.make_node("LpNormalization", ["summed"], ["text_embeddings"], axis=-1, p=2),
        ],
        {"input_ids": (TensorProto.INT64, ["B", "L"]), "attention_mask": (TensorProto.INT64, ["B", "L"])},
        "text_embeddings",
        [external("text"), small("last", [-1], np.int64), small("middle", [1], np.int64)],
    )
    return {
        "image.onnx": image,
        "text.onnx": text,
        "tokenizer.json": tiny_tokenizer().to_str().encode(),
        "weights.safetensors": stored,
    }


@pytest.fixture(scope="session")
def shared_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a tiny bundle; not to be changed."""
    folder = tmp_path_factory.mktemp("bundle") / "tiny"
    write_bundle(folder, config=tiny_config(), files=tiny_files())
    return folder


@pytest.fixture
def tiny_bundle(tmp_path: Path) -> Path:
    """The folder of a tiny bundle of the test's own."""
    folder = tmp_path / "tiny"
    write_bundle(folder, config=tiny_config(), files=tiny_files())
    return folder


@pytest.fixture
def strict_types() -> Iterator[None]:
    """JAX raises where an operation would mix types or ranks without saying so: what we write does not."""
    import jax

    with jax.numpy_dtype_promotion("strict"), jax.numpy_rank_promotion("raise"):
        yield


@pytest.fixture(scope="module")
def compile_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """One cache of compiled programs for all runs of a file: they are the same few, compiled again and again.

    Its settings are in the environment too, for other processes, and are what the fixture gives.
    """
    import jax

    settings = {
        "jax_compilation_cache_dir": str(tmp_path_factory.mktemp("compiled")),
        "jax_persistent_cache_min_compile_time_secs": 0.0,
        "jax_persistent_cache_min_entry_size_bytes": -1,
    }
    before = {name: getattr(jax.config, name) for name in settings}
    for name, value in settings.items():
        jax.config.update(name, value)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name.upper(), str(value))
        yield {name.upper(): str(value) for name, value in settings.items()}
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Three images, one of them in a folder below, and what is not to be embedded."""
    folder = tmp_path / "foto"
    (folder / "mare").mkdir(parents=True)
    for index, name in enumerate(["b.png", "a.JPG", "mare/città.png"]):
        Image.new("RGB", (20, 10 + index), (80 * index, 30, 200)).save(folder / name)
    (folder / "note.txt").write_text("non una foto")
    (folder / ".nascosta.png").write_bytes(b"")
    (folder / ".cache").mkdir()
    (folder / ".cache" / "x.png").write_bytes(b"")
    return folder


@pytest.fixture
def run(shared_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """`clipita` with the tiny bundle as its model; an error that is no refusal fails the test."""
    monkeypatch.setenv("CLIPITA_MODEL", str(shared_bundle))

    def run(*arguments: object, stdin: bytes | None = None) -> Result:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], input=stdin)
        assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
        return result

    return run
