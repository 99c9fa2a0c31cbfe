"""Compare the speed of clipita with what people use today.

    python -m benchmarks.speed

All run the same weights and photographs on the same threads. Cases are interleaved, medians are compared, and every
row says what it is compared with. Weights are random and of full size (ViT-B/32 and BERT-base), except for the rows of
the embedded model. Takes some fifteen minutes, 5 GB of disk in the temporary folder, and the `test` extra; the rows of
OpenVINO also `pip install openvino nncf`. Writes a file of figures for this kind of processor in results/speed/, and
speed.md and speed.svg of all kinds that have one there: ratios of one kind say little of another.
"""

import io
import json
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from benchmarks import memory, plot, startup
from benchmarks.convert import full_size_checkpoint
from benchmarks.tools import peers
from benchmarks.tools.measure import (
    RESULTS,
    THREADS,
    Figures,
    Spread,
    describe_machine,
    interleaved,
    machine,
    milliseconds,
    open_towers,
    result_file,
)
from benchmarks.tools.photographs import jpegs

Row = dict[str, Any]
Case = Callable[[], object]

# Multiply-adds of ViT-B/32 in the graph that is run. In a layer each of 50 tokens takes 4 x 768^2 + 2 x 768 x 3072, and
# its share of the two products of attention. The last layer computes keys and values for all tokens, and the rest for
# the class token alone. The 49 patches have 3072 values each.
_LAYER = 50 * (4 * 768**2 + 2 * 768 * 3072) + 2 * 50 * 50 * 768
_LAST = 50 * 2 * 768**2 + 2 * 768**2 + 2 * 768 * 3072 + 2 * 50 * 768
FLOPS_OF_AN_IMAGE = 2 * (49 * 3072 * 768 + 11 * _LAYER + _LAST + 768 * 512)  # 8.2e9
_LABELS = 1000


def measure() -> Figures:
    """Time all cases, and return the rows of the table."""
    starts = _startup()  # first: a small process starts others faster than a large one
    with full_size_checkpoint() as checkpoint, tempfile.TemporaryDirectory() as cache:
        models = _Models(checkpoint, cache)
        rows = [
            *_image_tower(models, Path(cache)),
            *_files(models, (1024, 768), count=32, rounds=7, targets=(2.0, 1.3)),
            *_files(models, (4000, 3000), count=8, rounds=5, targets=(4.5, None)),
            *_texts(models, Path(cache)),
            _labels_again(models),
            _embedded(models.embedded),
        ]
    return {"rows": rows + starts + _memory()}


class _Models:
    """Load one checkpoint with clipita and with its peers, all on the same threads."""

    def __init__(self, checkpoint: Path, cache: str) -> None:
        import torch
        import transformers

        import clipita

        torch.set_num_threads(THREADS)
        self.torch = torch
        self.fp32 = clipita.load(checkpoint, cache_dir=cache, precision="fp32")
        self.int8 = clipita.load(checkpoint, cache_dir=cache, precision="int8")
        self.embedded = clipita.load()
        _, self.fp32_towers = open_towers(checkpoint, cache_dir=cache, precision="fp32")
        _, self.int8_towers = open_towers(checkpoint, cache_dir=cache, precision="int8")
        self.peer: Any = transformers.AutoModel.from_pretrained(checkpoint).eval()
        self.processor: Any = transformers.AutoImageProcessor.from_pretrained(checkpoint)
        self.tokenizer: Any = transformers.AutoTokenizer.from_pretrained(checkpoint)

    def peer_images(self, pixel_values: Any) -> Any:
        """Return image features computed by transformers."""
        with self.torch.inference_mode():
            return self.peer.get_image_features(pixel_values=pixel_values)

    def peer_texts(self, texts: list[str], **options: Any) -> Any:
        """Return text features computed by transformers."""
        with self.torch.inference_mode():
            return self.peer.get_text_features(**self.tokenizer(texts, return_tensors="pt", **options))


def _image_tower(models: _Models, folder: Path) -> list[Row]:
    rows: list[Row] = []
    random = np.random.default_rng(0)
    example = {"pixel_values": random.standard_normal((8, 3, 224, 224), dtype=np.float32)}
    photographs = [Image.open(io.BytesIO(data)) for data in jpegs(500, 375, 32)]
    pixels = models.processor(photographs, return_tensors="np")["pixel_values"]
    samples = [{"pixel_values": np.asarray(value)} for value in pixels[:, None]]
    others = _others(peers.torch_tower(models.peer, "image"), example, samples, folder)
    for batch, rounds in ((32, 9), (8, 15), (1, 40)):
        pixels = random.integers(0, 256, (batch, 224, 224, 3), dtype=np.uint8)
        inputs = {"pixel_values": random.standard_normal((batch, 3, 224, 224), dtype=np.float32)}
        values = models.torch.from_numpy(inputs["pixel_values"])
        found = interleaved(
            {
                "fp32": lambda pixels=pixels: models.fp32_towers.encode_pixels(pixels),
                "int8": lambda pixels=pixels: models.int8_towers.encode_pixels(pixels),
                "peer": lambda values=values: models.peer_images(values),
                **{name: lambda run=run, inputs=inputs: run(inputs) for name, run in others.items()},
                **({f"sgemm, {name}": case for name, case in _products().items()} if batch == 32 else {}),
            },
            rounds,
        )
        name = f"image tower fp32, batch {batch}"
        row = _row(name, found["fp32"], found["peer"], "transformers, torch", 1.2 if batch == 32 else None, batch)
        if batch == 32:
            peak = max(_PRODUCT_FLOPS / found[name]["median"] for name in found if name.startswith("sgemm"))
            row["gflops"] = batch * FLOPS_OF_AN_IMAGE / found["fp32"]["median"] / 1e9
            row["sgemm_gflops"] = peak / 1e9
            row["note"] = f"{row['gflops']:.0f} GFLOP/s, {row['gflops'] / row['sgemm_gflops']:.0%} of the best sgemm"
        rows += [row, *_beside_others(name, found, "fp32", 1.0 if batch == 1 else None, batch)]
        name = f"image tower int8, batch {batch}"
        target = {32: 2.0, 8: None, 1: 3.3}[batch]
        rows.append(_row(name, found["int8"], found["peer"], "transformers, torch, fp32", target, batch))
        rows += _beside_others(name, found, "int8", 0.9, batch)
    return rows


def _others(tower: Any, example: peers.Inputs, samples: Sequence[peers.Inputs], folder: Path) -> dict[str, peers.Run]:
    """Return what else runs a tower, by what tables call it."""
    found = {"ONNX Runtime's dynamic int8, as optimum's": peers.onnx_int8(tower, example, folder)}
    if peers.has_openvino():
        found["OpenVINO, fp32"] = peers.openvino_fp32(tower, example)
        found["OpenVINO, int8 by NNCF"] = peers.openvino_int8(tower, example, samples)
    return found


def _beside_others(name: str, found: dict[str, Spread], precision: str, target: float | None, per: int) -> list[Row]:
    """Return rows that compare a precision with the same precision of `_others`; the target is beside OpenVINO."""
    names = [other for other in found if precision in other and other != precision]
    return [
        _row(name, found[precision], found[other], other, target if other.startswith("OpenVINO") else None, per)
        for other in names
    ]


_SHAPE = (400, 768, 3072)  # the largest matrix product in the tower, for 8 images
_PRODUCT_FLOPS = 16 * 2 * _SHAPE[0] * _SHAPE[1] * _SHAPE[2]


def _products() -> dict[str, Case]:
    """Return functions that compute 16 matrix products, one for each library, to find the machine's peak."""
    import onnxruntime
    import torch
    from onnx import TensorProto, helper

    from clipita.backends.onnx import session_options

    a, b = (np.random.default_rng(0).standard_normal(shape, np.float32) for shape in (_SHAPE[:2], _SHAPE[1:]))
    inputs = [helper.make_tensor_value_info("a", TensorProto.FLOAT, a.shape)]
    outputs = [helper.make_tensor_value_info(f"y{i}", TensorProto.FLOAT, (_SHAPE[0], _SHAPE[2])) for i in range(16)]
    weight = helper.make_tensor("b", TensorProto.FLOAT, b.shape, b.tobytes(), raw=True)
    nodes = [helper.make_node("MatMul", ["a", "b"], [f"y{i}"], f"node{i}") for i in range(16)]
    graph = helper.make_graph(nodes, "products", inputs, outputs, [weight])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    options = session_options()
    options.graph_optimization_level = (
        onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    )  # it would merge 16 equal nodes
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    first, second = torch.from_numpy(a), torch.from_numpy(b)
    return {
        "numpy": lambda: [a @ b for _ in range(16)],
        "torch": lambda: [first @ second for _ in range(16)],
        "onnxruntime": lambda: session.run(None, {"a": a}),
    }


def _files(
    models: _Models, size: tuple[int, int], *, count: int, rounds: int, targets: tuple[float, float | None]
) -> list[Row]:
    files = jpegs(*size, count)

    def peer() -> object:
        images = [Image.open(io.BytesIO(data)) for data in files]
        return models.peer_images(models.processor(images, return_tensors="pt")["pixel_values"])

    found = interleaved(
        {
            "int8": lambda: models.int8.encode_image(files),
            "fp32": lambda: models.fp32.encode_image(files),
            "peer": peer,
        },
        rounds,
    )
    return [
        _row(
            f"JPEG {size[0]} x {size[1]} to embedding, {precision}",
            found[precision],
            found["peer"],
            "transformers, its default processor",
            target,
            count,
        )
        for precision, target in zip(("int8", "fp32"), targets, strict=True)
    ]


def _texts(models: _Models, folder: Path) -> list[Row]:
    names = ["un gatto nero", "una foto di un cane", "il mare", "due bambini"]
    ends = "abcdefghijklmnopqrstuvwxyz012345"
    labels = [f"{names[index % 4]} {number}" for index, number in enumerate(ends)]
    sentences = [f"{', '.join(names)} e poi {names[index % 4]} con {number}" for index, number in enumerate(ends)]

    def tokens(texts: list[str]) -> peers.Inputs:
        found = models.tokenizer(texts, return_tensors="np", padding=True)
        return {name: np.asarray(found[name]) for name in ("input_ids", "attention_mask")}

    samples = [tokens([text]) for text in labels + sentences]
    others = _others(peers.torch_tower(models.peer, "text"), tokens(sentences), samples, folder)
    rows: list[Row] = []
    padded = "the original's padding to 96, torch"
    for kind, texts in (("labels", labels), ("sentences", sentences)):
        inputs = tokens(texts)
        found = interleaved(
            {
                "int8": lambda texts=texts: models.int8.encode_text(texts),
                "fp32": lambda texts=texts: models.fp32.encode_text(texts),
                "longest": lambda texts=texts: models.peer_texts(texts, padding=True),
                "96": lambda texts=texts: models.peer_texts(texts, padding="max_length", max_length=96),
                **{name: lambda run=run, inputs=inputs: run(inputs) for name, run in others.items()},
            },
            7,
        )
        longest = "transformers, padded to the longest"
        length = int(inputs["attention_mask"].sum(1).mean().round())
        for precision in ("int8", "fp32"):
            name = f"32 {kind} of some {length} tokens, {precision}"
            if kind == "labels" and precision == "int8":
                rows.append(_row(name, found[precision], found["96"], padded, 25, 32))
            target = 2 if kind == "labels" and precision == "int8" else None
            rows.append(_row(name, found[precision], found["longest"], longest, target, 32))
            rows += _beside_others(name, found, precision, 0.9 if precision == "int8" else 1.0, 32)
    return rows


def _labels_again(models: _Models) -> Row:
    """Time zero-shot with labels that were used before; a pipeline of transformers embeds them again in every call."""
    labels = [f"una foto di un gatto {number}" for number in range(_LABELS)]
    pixels = np.random.default_rng(0).integers(0, 256, (224, 224, 3), dtype=np.uint8)

    def peer() -> object:
        values = models.processor(pixels, return_tensors="pt")["pixel_values"]
        return models.peer_images(values), models.peer_texts(labels, padding=True)

    found = interleaved({"clipita": lambda: models.int8.zero_shot(pixels, labels, templates="{}"), "peer": peer}, 3)
    name = f"second zero_shot with the same {_LABELS:,} labels, int8"
    return _row(name, found["clipita"], found["peer"], "transformers, which embeds them again", 100)


def _embedded(model: Any) -> Row:
    files = jpegs(500, 375, 64)
    found = interleaved({"clipita": lambda: model.encode_image(files)}, 7)["clipita"]
    row = _row("clipita-mini: JPEG 500 x 375 to embedding", found, None, "", 80, 64)
    return row | {"value": 64 / found["median"], "unit": "images/s"}


def _startup() -> list[Row]:
    found = startup.measure()["seconds"]
    peer = found["import torch, transformers"]
    answer = _row("import to first answer, clipita-mini", found["first answer"], None, "", 0.6)
    return [
        _row("import clipita", found["import clipita"], peer, "import of torch and transformers", 25),
        answer | {"value": found["first answer"]["median"], "unit": "s, at most"},
    ]


def _memory() -> list[Row]:
    report = memory.measure()
    found = report["megabytes"]
    mini, full, peer = (
        found[name]["after"] for name in ("clipita-mini", "clipita, full size, int8", "transformers, full size")
    )
    streamed = found["clipita-mini, streamed"]["resident"]
    growth = streamed[str(report["streamed"])] / streamed[str(report["photographs"])] - 1
    return [
        _value("resident after 1,000 photographs, clipita-mini", mini, "MB, at most", 150, mini <= 150),
        _value(
            "resident after 1,000 photographs, full size int8",
            full / peer,
            f"of transformers' {peer:.0f} MB, at most",
            1 / 3,
            full / peer <= 1 / 3,
        ),
        _value("growth from 1,000 to 20,000 streamed photographs", growth, "at most", 0.05, growth <= 0.05),
    ]


def _row(name: str, ours: Spread, peer: Spread | None, against: str, target: float | None, per: int = 1) -> Row:
    row: Row = {"row": name, "clipita": ours, "per": per, "target": target}
    if peer is not None:
        row |= {"peer": peer, "against": against, "value": peer["median"] / ours["median"], "unit": "x"}
    return row


def _value(name: str, value: float, unit: str, target: float, met: bool) -> Row:
    return {"row": name, "value": value, "unit": unit, "target": target, "met": met}


def markdown(reports: list[Figures]) -> str:
    """Return the tables of all kinds of processor as Markdown: the ratios side by side, then the times of each."""
    kinds = [report["machine"]["kind"] for report in reports]
    lines = [
        "# Speed",
        "",
        "How many times as fast clipita is as what stands beside it, on the same machine, weights and threads, for "
        "each kind of processor that it was measured on; the lowest comes first. Weights are random and of full size, "
        "ViT-B/32 and BERT-base, but for clipita-mini. `python -m benchmarks.speed` measures the kind that it runs on.",
        "",
        f"| | against | lowest | {' | '.join(kinds)} | target |",
        f"|---|---|---|{'---|' * len(kinds)}---|",
    ]
    for key, found in _side_by_side(reports).items():
        row = next(iter(found.values()))
        at_most = "at most" in row["unit"]
        values = [row["value"] for row in found.values()]
        unit = row["unit"].removesuffix("at most").removesuffix(", ").strip()
        cells = [f"{_number(found[kind]['value'])} {unit}".strip() if kind in found else "" for kind in kinds]
        target = "" if row["target"] is None else f"{_number(row['target'])}{' at most' if at_most else ''}"
        worst = f"{_number((max if at_most else min)(values))} {unit}".strip()
        lines.append(f"| {key[0]} | {key[1]} | {worst} | {' | '.join(cells)} | {target} |")
    for report in reports:
        lines += [
            "",
            f"## {report['machine']['kind']}",
            "",
            "Medians of interleaved runs, quartiles in brackets, milliseconds for one image, text or call.",
            "",
            "| | clipita, ms | against | ms | |",
            "|---|---|---|---|---|",
        ]
        for row in report["rows"]:
            if "clipita" in row:
                peer = milliseconds(row["peer"], row["per"]) if "peer" in row else ""
                ours = milliseconds(row["clipita"], row["per"])
                lines.append(f"| {row['row']} | {ours} | {row.get('against', '')} | {peer} | {row.get('note', '')} |")
        lines += ["", describe_machine(report)]
    return "\n".join(lines) + "\n"


def _side_by_side(reports: list[Figures]) -> dict[tuple[str, str], dict[str, Row]]:
    """Return what each kind of processor measured, by the name of the row and what it is compared with."""
    found: dict[tuple[str, str], dict[str, Row]] = {}
    for report in reports:
        for row in report["rows"]:
            found.setdefault((row["row"], row.get("against", "")), {})[report["machine"]["kind"]] = row
    return found


def lowest(reports: list[Figures]) -> dict[str, float]:
    """Return the lowest ratio of each comparison with a peer over all kinds of processor, by its name."""
    return {
        f"{name}\nagainst {against}": min(row["value"] for row in found.values())
        for (name, against), found in _side_by_side(reports).items()
        if against
    }


def _number(value: float) -> str:
    return f"{value:.0f}" if value >= 20 else f"{value:.2g}"


def main() -> None:
    """Measure this kind of processor, and write the tables and the picture of all."""
    before = machine()
    report = {"machine": before} | measure()
    folder = RESULTS / "speed"
    (folder / f"{before['kind'].replace(' ', '-').lower()}.json").write_text(json.dumps(report, indent=1) + "\n")
    reports = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    text = markdown(reports)
    result_file("speed", "md").write_text(text)
    plot.speed(lowest(reports), result_file("speed", "svg"))
    print(text)


if __name__ == "__main__":
    main()
