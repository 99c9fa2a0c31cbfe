"""Run the towers of a transformers model as people do who look for speed: OpenVINO, and ONNX Runtime's own quantizer.

OpenVINO is no dependency of any extra: `pip install openvino nncf` beside the `test` extra. Without it its cases are
left out.
"""

# torch, OpenVINO and NNCF leave parts of their interfaces without types.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false, reportUnknownArgumentType=false
# pyright: reportMissingImports=false

import importlib.util
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tools.measure import THREADS
from clipita.system.arrays import Array

Inputs = Mapping[str, Array]
Run = Callable[[Inputs], object]


def has_openvino() -> bool:
    """Return whether OpenVINO and its quantizer are installed."""
    return all(importlib.util.find_spec(name) for name in ("openvino", "nncf"))


def torch_tower(model: Any, kind: str) -> Any:
    """Return a torch module of one tower of a transformers model, from its inputs to its features.

    Args:
        model: Has both towers.
        kind: "image", which takes `pixel_values`, or "text", which takes `input_ids` and `attention_mask`.
    """
    import torch

    class Tower(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, first: Any, second: Any = None) -> Any:
            if kind == "image":
                found = self.model.get_image_features(pixel_values=first)
            else:
                found = self.model.get_text_features(input_ids=first, attention_mask=second)
            return getattr(found, "pooler_output", found)

    return Tower().eval()


def openvino_fp32(tower: Any, example: Inputs) -> Run:
    """Return a function that runs a torch module in OpenVINO, in float32 also where the processor has bfloat16."""
    return _compiled(_converted(tower, example), example, {"INFERENCE_PRECISION_HINT": "f32"})


def openvino_int8(tower: Any, example: Inputs, samples: Iterable[Inputs]) -> Run:
    """Return a function that runs a torch module in OpenVINO, quantized by NNCF's preset for transformers.

    Args:
        tower: The module.
        example: Inputs that it is traced with.
        samples: Inputs that its scales are chosen by.
    """
    import nncf

    values = [tuple(sample.values()) for sample in samples]
    model = nncf.quantize(
        _converted(tower, example), nncf.Dataset(values), model_type=nncf.ModelType.TRANSFORMER, subset_size=len(values)
    )
    return _compiled(model, example, {})


def _converted(tower: Any, example: Inputs) -> Any:
    import openvino
    import torch

    return openvino.convert_model(tower, example_input=tuple(torch.from_numpy(value) for value in example.values()))


def _compiled(model: Any, example: Inputs, settings: dict[str, str]) -> Run:
    import openvino

    settings = {"INFERENCE_NUM_THREADS": str(THREADS), "PERFORMANCE_HINT": "LATENCY", **settings}
    compiled = openvino.Core().compile_model(model, "CPU", settings)
    compiled(tuple(example.values()))
    return lambda inputs: compiled(tuple(inputs.values()))


def onnx_int8(tower: Any, example: Inputs, folder: Path) -> Run:
    """Return a function that runs a torch module in ONNX Runtime, quantized by its own dynamic quantizer.

    The settings are those of optimum's `AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)`.

    Args:
        tower: The module.
        example: Inputs that it is traced with.
        folder: Files are written here.
    """
    import torch
    from onnxruntime import InferenceSession
    from onnxruntime.quantization import QuantType, quantize_dynamic

    from clipita.backends.onnx import session_options

    plain, small = folder / "plain.onnx", folder / "int8.onnx"
    names = list(example)
    values = tuple(torch.from_numpy(np.ascontiguousarray(value)) for value in example.values())
    axes = {name: {axis: f"{name}_{axis}" for axis in ((0,) if value.ndim == 4 else (0, 1))}
            for name, value in example.items()}  # fmt: skip
    torch.onnx.export(tower, values, str(plain), input_names=names, dynamic_axes=axes, dynamo=False)
    quantize_dynamic(plain, small, per_channel=True, weight_type=QuantType.QInt8, op_types_to_quantize=["MatMul"])
    session = InferenceSession(str(small), session_options(), providers=["CPUExecutionProvider"])
    return lambda inputs: session.run(None, dict(inputs))
