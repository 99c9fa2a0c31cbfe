"""Measure the first load of a full-size checkpoint.

    python -m benchmarks.convert

transformers writes a VisionTextDualEncoder of CLIP-Italian's shape (BERT-base and CLIP's ViT-B/32) with random weights,
and computes reference embeddings. Separate processes then load it: converting it, from the cache, and in 8 bits. Writes
convert.json and convert.md in results/convert/. Needs some 2 GB of disk in the temporary folder, the `test` extra, and
Linux.
"""

import json
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.tools.measure import Figures, process, publish

TEXTS = ["un gatto nero", "una foto di un cane", "il mare d'inverno", "due bambini giocano a pallone in un parco"] * 2
IMAGES = 4
TARGETS = {"seconds": 60, "peak_multiple": 3, "max_difference": 1e-4}

# Loads a checkpoint, saves its embeddings, and prints the seconds and memory that this took. The time of the imports is
# not counted, but their memory is.
CLIENT = """
import json, re, sys, time
from pathlib import Path
import numpy as np
import clipita, clipita.loading.open, clipita.convert.foreign, clipita.backends.onnx
folder, cache, precision, inputs, outputs, texts = sys.argv[1:]
start = time.perf_counter()
model = clipita.load(folder, cache_dir=cache, precision=precision)
loaded = time.perf_counter()
images = np.load(inputs)
embeddings = {"text": model.encode_text(json.loads(texts)), "image": model.encode_image(list(images))}
first = time.perf_counter()
np.savez(outputs, **embeddings)
# Not getrusage: its maximum is inherited from the process that started this one.
peak = int(re.search(r"VmHWM:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024
print(json.dumps({"seconds": loaded - start, "first_embeddings": first - loaded, "peak_bytes": peak}))
"""


def write_checkpoint(folder: Path, pictures: np.ndarray) -> dict[str, np.ndarray]:
    """Write a random checkpoint with all its files, and return the embeddings that transformers computes with it."""
    import torch
    import transformers

    torch.manual_seed(0)
    words = sorted({word for text in TEXTS for word in text.replace("'", " ").split()})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "'", *words]
    pieces += [f"[unused{index}]" for index in range(31102 - len(pieces))]
    folder.mkdir()
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "BertTokenizer", "do_lower_case": True, "model_max_length": 512})
    )
    config = transformers.VisionTextDualEncoderConfig(
        vision_config=transformers.CLIPVisionConfig().to_dict(),
        text_config=transformers.BertConfig(vocab_size=len(pieces)).to_dict(),
    )
    model: Any = transformers.VisionTextDualEncoderModel(config).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # biases start at zero, which would hide errors in them
            if parameter.ndim == 1 and name != "logit_scale":
                parameter += 0.02 * torch.randn_like(parameter)
    model.save_pretrained(folder)
    processor: Any = transformers.CLIPImageProcessorPil()
    processor.save_pretrained(folder)
    tokenizer: Any = transformers.AutoTokenizer.from_pretrained(folder)
    with torch.no_grad():
        tokens = tokenizer(TEXTS, padding=True, return_tensors="pt")
        values = processor(list(pictures), return_tensors="pt")["pixel_values"]
        features = {"text": model.get_text_features(**tokens), "image": model.get_image_features(values)}
    found = {name: getattr(value, "pooler_output", value) for name, value in features.items()}
    return {name: torch.nn.functional.normalize(value, dim=-1).numpy() for name, value in found.items()}


def _pictures() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (IMAGES, 224, 224, 3), dtype=np.uint8)


@contextmanager
def full_size_checkpoint() -> Generator[Path]:
    """Give the folder of such a checkpoint; it is removed when the block ends."""
    with tempfile.TemporaryDirectory() as scratch:
        write_checkpoint(Path(scratch) / "checkpoint", _pictures())
        yield Path(scratch) / "checkpoint"


def measure() -> Figures:
    """Load the checkpoint in each way, one process each."""
    with tempfile.TemporaryDirectory() as scratch:
        return _measure(Path(scratch))


def _measure(scratch: Path) -> Figures:
    pictures = _pictures()
    np.save(scratch / "pictures.npy", pictures)
    expected = write_checkpoint(scratch / "checkpoint", pictures)
    size = (scratch / "checkpoint" / "model.safetensors").stat().st_size

    def load(precision: str) -> Figures:
        inputs = (scratch / "checkpoint", scratch / "cache", precision, scratch / "pictures.npy")
        start = time.perf_counter()
        printed = process(CLIENT, *inputs, scratch / "out.npz", json.dumps(TEXTS))
        found = json.loads(printed) | {"process_seconds": time.perf_counter() - start}
        with np.load(scratch / "out.npz") as outputs:
            difference = {name: float(np.abs(outputs[name] - expected[name]).max()) for name in expected}
            cosine = {name: float((outputs[name] * expected[name]).sum(-1).min()) for name in expected}
        return found | {"max_difference": difference, "min_cosine": cosine}

    runs = {
        "converted": load("fp32"),
        "from the cache": load("fp32"),
        "made int8": load("int8"),
        "int8 from the cache": load("int8"),
    }
    for run in runs.values():
        run["peak_multiple"] = run["peak_bytes"] / size
    bundles: dict[str, dict[str, int]] = {}
    for manifest in (scratch / "cache").rglob("clipita.json"):
        precision = json.loads(manifest.read_text())["recommended_precision"]
        bundles[precision] = {path.name: path.stat().st_size for path in sorted(manifest.parent.iterdir())}
        if precision == "int8":
            runs["made int8"]["fidelity"] = json.loads(manifest.read_text())["fidelity"]
    return {
        "checkpoint_bytes": size,
        "targets": TARGETS,
        "runs": runs,
        "bundles": bundles,
    }


def markdown(report: Figures) -> str:
    """Return the table of loads as Markdown."""
    lines = [
        "# Loading a full-size checkpoint",
        "",
        f"BERT-base beside ViT-B/32, random, {report['checkpoint_bytes'] / 1e6:.0f} MB of safetensors. "
        "One run each, by `python -m benchmarks.convert`.",
        "",
        "| load | seconds | first embeddings | peak memory | of the checkpoint | max difference | smallest cosine |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, run in report["runs"].items():
        lines.append(
            f"| {name} | {run['seconds']:.2f} | {run['first_embeddings']:.2f} | {run['peak_bytes'] / 1e6:.0f} MB | "
            f"{run['peak_multiple']:.2f} x | {max(run['max_difference'].values()):.1e} | "
            f"{min(run['min_cosine'].values()):.5f} |"
        )
    sizes = "; ".join(
        f"{precision} {sum(files.values()) / 1e6:.0f} MB" for precision, files in sorted(report["bundles"].items())
    )
    targets = report["targets"]
    lines += [
        "",
        f"Bundles: {sizes}. Cosines of int8 when it was made: {json.dumps(report['runs']['made int8']['fidelity'])}.",
        "",
        f"Targets for the first row: {targets['seconds']} s, {targets['peak_multiple']} x, a difference of "
        f"{targets['max_difference']}. Peak memory counts the pages of mapped files, and the model that runs.",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    publish("convert", measure, markdown)
