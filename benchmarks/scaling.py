"""Measure threads and batch sizes.

    python -m benchmarks.scaling

Times the image towers of the embedded model and of a full-size one, on 1 to all threads and in batches of 1 to 128.
"""

import tempfile
from functools import partial

import numpy as np

from benchmarks.convert import full_size_checkpoint
from benchmarks.tools.measure import THREADS, Figures, interleaved, open_towers, publish
from clipita.bundles.bundle import Bundle
from clipita.images.pixels import Preprocessing

BATCHES = (1, 4, 8, 32, 128)


def measure() -> Figures:
    """Time every model, number of threads and size of batch."""
    rows: list[Figures] = []
    with full_size_checkpoint() as full, tempfile.TemporaryDirectory() as cache:
        models = {
            (name, threads): open_towers(source, precision=precision, cache_dir=cache, threads=threads)
            for name, source, precision in (
                ("clipita-mini", "clipita-mini", None),
                ("full size, int8", full, "int8"),
                ("full size, fp32", full, "fp32"),
            )
            for threads in range(1, THREADS + 1)
        }
        for batch in BATCHES:
            random = np.random.default_rng(0)
            pixels = {
                size: random.integers(0, 256, (batch, size, size, 3), dtype=np.uint8)
                for size in sorted({_image_size(bundle) for bundle, _ in models.values()})
            }
            cases = {
                key: partial(towers.encode_pixels, pixels[_image_size(bundle)])
                for key, (bundle, towers) in models.items()
            }
            named = {f"{name}/{threads}": case for (name, threads), case in cases.items()}
            found = interleaved(named, max(3, 32 // batch))
            for name, threads in models:
                spread = found[f"{name}/{threads}"]
                rows.append({"model": name, "threads": threads, "batch": batch, "seconds": spread})
    return {"rows": rows}


def _image_size(bundle: Bundle) -> int:
    return Preprocessing.from_dict(bundle.config.image["preprocessing"]).image_size


def markdown(report: Figures) -> str:
    """Return the table of images a second as Markdown."""
    lines = [
        "# Threads and batches",
        "",
        "Images a second through the image tower, by the median.",
        "",
        "| model | threads | " + " | ".join(f"batch {batch}" for batch in BATCHES) + " |",
        "|---|---|" + "---|" * len(BATCHES),
    ]
    for name, threads in dict.fromkeys((row["model"], row["threads"]) for row in report["rows"]):
        rows = [row for row in report["rows"] if (row["model"], row["threads"]) == (name, threads)]
        speeds = " | ".join(f"{row['batch'] / row['seconds']['median']:.0f}" for row in rows)
        lines.append(f"| {name} | {threads} | {speeds} |")
    return "\n".join(lines)


if __name__ == "__main__":
    publish("scaling", measure, markdown)
