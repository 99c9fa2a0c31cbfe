"""Make a tiny bundle: real graphs, a real tokenizer, real files, and weights that take a millisecond to run."""

import json

import numpy as np
import onnx
import tokenizers
from onnx import TensorProto, helper
from safetensors.numpy import save as save_safetensors
from tokenizers.models import WordLevel
from tokenizers.normalizers import Lowercase
from tokenizers.pre_tokenizers import WhitespaceSplit
from tokenizers.processors import TemplateProcessing

from clipita.bundles.bundle import BundleConfig, Graphs
from clipita.text.tokenizer import TokenizerConfig

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
