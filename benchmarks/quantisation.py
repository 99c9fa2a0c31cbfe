"""Compare ways to quantize an image tower.

    python -m benchmarks.quantisation

`precision="int8"` is dynamic: activations get their scale in each run. It is compared with static QDQ graphs of ONNX
Runtime, calibrated on photographs, and with OpenVINO in float32 and in the int8 of NNCF, if `pip install openvino nncf`
has put them there; at full size, and for clipita-mini, which is also computed in float32 from the same weights.
"""

import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.convert import full_size_checkpoint
from benchmarks.tools.measure import THREADS, Figures, interleaved, open_towers, publish
from benchmarks.tools.photographs import jpegs
from clipita.backends.onnx import OnnxBackend, session_options
from clipita.bundles.bundle import Bundle
from clipita.convert.rewrite import rewrite
from clipita.images.pixels import Preprocessing, load_pixels
from clipita.loading.open import open_model

CALIBRATION, JUDGED = 32, 8
STATIC = {"static QDQ, u8 activations": "QUInt8", "static QDQ, s8 activations": "QInt8"}
BATCHES = {1: 24, 8: 10, 32: 4}  # size of a batch to rounds of timing


def measure() -> Figures:
    """Time and compare the ways for both models."""
    with full_size_checkpoint() as full, tempfile.TemporaryDirectory() as scratch:
        rewrite(open_model("clipita-mini"), Path(scratch) / "mini", precision="fp32")
        towers = {
            "full size": {p: open_towers(full, precision=p, cache_dir=scratch) for p in ("fp32", "int8")},
            "clipita-mini": {
                "fp32": open_towers(Path(scratch) / "mini", precision="fp32"),
                "int8": open_towers("clipita-mini", precision="int8"),
            },
        }
        return {name: _tower(opened, Path(scratch) / name) for name, opened in towers.items()}


def _tower(opened: dict[str, tuple[Bundle, OnnxBackend]], folder: Path) -> list[Figures]:
    bundle, _ = next(iter(opened.values()))
    preprocessing = Preprocessing.from_dict(bundle.config.image["preprocessing"])
    files = jpegs(500, 375, CALIBRATION + JUDGED)  # as many as the largest batch, at least
    pixels = np.stack([load_pixels(data, preprocessing, name="a photograph") for data in files])
    cases: dict[str, Any] = {f"clipita, {name}": towers.encode_pixels for name, (_, towers) in opened.items()}
    for name, activations in STATIC.items():
        cases[name] = _static(bundle, folder / activations, activations, pixels[JUDGED:])
    cases |= _openvino(bundle, folder / "openvino", pixels[JUDGED:])
    exact = next(iter(cases.values()))(pixels[:JUDGED])  # in float32
    rows: list[Figures] = []
    times = {
        batch: interleaved({name: lambda run=run, n=batch: run(pixels[:n]) for name, run in cases.items()}, rounds)
        for batch, rounds in BATCHES.items()
    }
    for name, run in cases.items():
        found = run(pixels[:JUDGED])
        cosines = (found / np.linalg.norm(found, axis=-1, keepdims=True) * exact).sum(-1)
        seconds = {str(batch): found[name] for batch, found in times.items()}
        rows.append({"name": name, "seconds": seconds, "cosine": float(cosines.mean()), "worst": float(cosines.min())})
    return rows


def _float32_graph(bundle: Bundle, folder: Path) -> Any:
    """Write a bundle's weights in float32 to a folder, and return the image graph that reads them there."""
    from safetensors.numpy import load_file, save_file

    from clipita.convert.graph.towers import image_graph
    from clipita.convert.weights.quantize import dequantize
    from clipita.convert.weights.safetensors_file import StoredWeights
    from clipita.towers.config import DualConfig

    folder.mkdir(parents=True)
    save_file(dequantize(load_file(bundle.path("weights.safetensors"))), folder / "weights.safetensors")
    stored = StoredWeights.from_file(folder / "weights.safetensors")
    return image_graph(DualConfig.from_bundle(bundle.config), stored, portable=True)


def _openvino(bundle: Bundle, folder: Path, calibration: Any) -> dict[str, Any]:
    """Return functions of pixels that run the bundle's image graph on OpenVINO; none if it is not installed.

    Its threads, of a number as ours, spin between runs; images go in runs of eight, which is faster than all at once.
    """
    try:
        import nncf  # pyright: ignore[reportMissingImports]
        import openvino  # pyright: ignore[reportMissingImports]
    except ModuleNotFoundError:
        return {}
    import onnx

    onnx.save(_float32_graph(bundle, folder), folder / "image.onnx")
    core: Any = openvino.Core()
    model: Any = core.read_model(folder / "image.onnx")
    kind: Any = nncf.ModelType.TRANSFORMER if bundle.config.image["kind"] == "vit" else None
    photographs: Any = nncf.Dataset([{"pixels": photograph[None]} for photograph in calibration])
    quantized: Any = nncf.quantize(model, photographs, model_type=kind, subset_size=len(calibration))
    options = {
        "PERFORMANCE_HINT": "LATENCY",
        "INFERENCE_NUM_THREADS": THREADS,
        "INFERENCE_PRECISION_HINT": "f32",
    }

    def case(model: Any) -> Any:
        request = core.compile_model(model, "CPU", options).create_infer_request()

        def run(pixels: Any) -> Any:
            parts = [pixels[start : start + 8] for start in range(0, len(pixels), 8)]
            return np.concatenate([request.infer({0: part})[0].copy() for part in parts])

        return run

    return {"OpenVINO, fp32": case(model), "OpenVINO, int8 by NNCF": case(quantized)}


def _static(bundle: Bundle, folder: Path, activations: str, calibration: Any) -> Any:
    """Return a function of pixels that runs the bundle's image graph in QDQ form, with int8 weights per channel."""
    import onnx
    import onnxruntime
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    onnx.save(_float32_graph(bundle, folder), folder / "image.onnx")

    class Photographs(CalibrationDataReader):
        def __init__(self) -> None:
            self.left = iter(calibration)

        def get_next(self) -> Any:
            photograph = next(self.left, None)
            return None if photograph is None else {"pixels": photograph[None]}

    quantize_static(
        onnx.load(folder / "image.onnx"),
        folder / "static.onnx",
        Photographs(),
        quant_format=QuantFormat.QDQ,
        per_channel=True,
        op_types_to_quantize=["MatMul", "Conv"],
        activation_type=QuantType[activations],
        weight_type=QuantType.QInt8,
        use_external_data_format=True,
    )
    session = onnxruntime.InferenceSession(folder / "static.onnx", session_options())
    return lambda pixels: session.run(None, {"pixels": pixels})[0]


def markdown(report: Figures) -> str:
    """Return a table for each model as Markdown."""
    lines = [
        "# Ways to quantize",
        "",
        "Milliseconds an image by the median, in interleaved runs; cosines to the first row of each tower. Under load, "
        "which the last line states, compare rows with each other only. Our int8 scales activations in each run and "
        "needs no photographs. Of a full model there are only random weights here, which say nothing of outliers; "
        "`clipita.convert.weights.quantize` has figures for those. Static graphs of ONNX Runtime's own quantizer cost "
        "clipita-mini's tower its accuracy: it rounds each weight by itself, and the sums of depthwise kernels drift. "
        "`clipita.convert.weights.quantize` keeps the sums.",
    ]
    for tower, rows in report.items():
        if not isinstance(rows, list):
            continue
        batches = " | ".join(f"batch {batch}" for batch in BATCHES)
        lines += [
            "",
            f"## {tower}",
            "",
            f"| | {batches} | mean cosine | worst |",
            "|---|" + "---|" * (len(BATCHES) + 2),
        ]
        for row in rows:
            speeds = " | ".join(f"{1000 * row['seconds'][str(b)]['median'] / b:.1f}" for b in BATCHES)
            lines.append(f"| {row['name']} | {speeds} | {row['cosine']:.4f} | {row['worst']:.4f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    publish("quantisation", measure, markdown)
