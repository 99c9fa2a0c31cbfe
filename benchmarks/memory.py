"""Measure the resident memory of whole processes.

    python -m benchmarks.memory

After 1,000 photographs of 500 x 375: with the embedded model, with a full-size one in 8 bits, and with the same weights
in transformers and torch. Then over 20,000 photographs that are streamed through the embedded model. Needs Linux.
"""

import json
import tempfile
from pathlib import Path

from benchmarks.convert import full_size_checkpoint
from benchmarks.tools.measure import Figures, process, publish
from benchmarks.tools.photographs import jpegs

PHOTOGRAPHS = 1000
STREAMED = 20_000

_CLIENT = """
import itertools, json, re, sys
from pathlib import Path
def resident():
    return int(re.search(r"VmRSS:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1]) / 1000
folder, count, checkpoint, cache = sys.argv[1], int(sys.argv[2]), sys.argv[3], sys.argv[4]
paths = itertools.cycle(sorted(Path(folder).iterdir()))
stream = itertools.islice(paths, count)
"""
CLIPITA = (
    _CLIENT
    + """
import clipita
model = clipita.load(checkpoint, cache_dir=cache, precision=None if checkpoint == "clipita-mini" else "int8")
marks, during = {}, 0
for number, result in enumerate(model.iter_encode_image(stream), 1):
    assert result.error is None
    during = max(during, resident()) if number % 100 == 0 else during
    if number in (1000, count):
        marks[str(number)] = resident()
print(json.dumps({"resident": marks, "largest": during, "after": resident()}))
"""
)
TRANSFORMERS = (
    _CLIENT
    + """
import torch, transformers
from PIL import Image
model = transformers.AutoModel.from_pretrained(checkpoint).eval()
processor = transformers.AutoImageProcessor.from_pretrained(checkpoint)
with torch.inference_mode():
    while batch := list(itertools.islice(stream, 32)):
        images = [Image.open(path) for path in batch]
        model.get_image_features(**processor(images, return_tensors="pt"))
print(json.dumps({"after": resident()}))
"""
)


def measure() -> Figures:
    """Run a process for each case, and return the megabytes that each reports."""
    with tempfile.TemporaryDirectory() as scratch, full_size_checkpoint() as full:
        folder = Path(scratch) / "photographs"
        folder.mkdir()
        for index, data in enumerate(jpegs(500, 375, 32)):
            (folder / f"{index}.jpg").write_bytes(data)

        def run(code: str, model: object, count: int = PHOTOGRAPHS) -> Figures:
            return json.loads(process(code, folder, count, model, Path(scratch) / "cache"))

        run(CLIPITA, full, 1)  # converts the checkpoint, so that no measured run has to
        return {
            "photographs": PHOTOGRAPHS,
            "streamed": STREAMED,
            "megabytes": {
                "clipita-mini": run(CLIPITA, "clipita-mini"),
                "clipita, full size, int8": run(CLIPITA, full),
                "transformers, full size": run(TRANSFORMERS, full),
                "clipita-mini, streamed": run(CLIPITA, "clipita-mini", STREAMED),
            },
        }


def markdown(report: Figures) -> str:
    """Return the table of megabytes as Markdown."""
    lines = [
        "# Memory",
        "",
        f"Resident memory of whole processes, after {report['photographs']:,} photographs of 500 x 375.",
        "",
        "| | afterwards | at most meanwhile |",
        "|---|---|---|",
    ]
    for name, found in report["megabytes"].items():
        largest = f"{found['largest']:.0f} MB" if "largest" in found else ""
        lines.append(f"| {name} | {found['after']:.0f} MB | {largest} |")
    marks = report["megabytes"]["clipita-mini, streamed"]["resident"]
    steps = ", ".join(f"{value:.0f} MB at {int(number):,}" for number, value in marks.items())
    return "\n".join([*lines, "", f"Streamed, while the threads read ahead: {steps}."])


if __name__ == "__main__":
    publish("memory", measure, markdown)
