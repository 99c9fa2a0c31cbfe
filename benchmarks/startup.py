"""Measure how long a user waits at the start.

    python -m benchmarks.startup

Times whole processes, interleaved: the import of clipita, and the import with the first answer of the embedded model.
Beside them stand `import numpy`, which clipita cannot do without, and the import of torch and transformers.
"""

import sys

from benchmarks.tools.measure import PHOTOS, Figures, interleaved, process, publish

PHOTO = next(path for path in PHOTOS if path.stem == "gatto")
CASES = {
    "python": "pass",
    "import numpy": "import numpy",
    "import clipita": "import clipita",
    "first answer": f"import clipita; clipita.zero_shot({str(PHOTO)!r}, ['gatto', 'cane'])",
    "import torch, transformers": "import torch; from transformers import CLIPModel, CLIPProcessor",
}


def measure(rounds: int = 15) -> Figures:
    """Time a process for each case."""
    return {
        "rounds": rounds,
        "seconds": interleaved({name: lambda c=c: process(c) for name, c in CASES.items()}, rounds),
    }


def markdown(report: Figures) -> str:
    """Return the table of seconds as Markdown."""
    lines = ["# Starting", "", "Whole processes.", "", "| process | seconds: median (quartiles) |", "|---|---|"]
    for name, found in report["seconds"].items():
        lines.append(f"| {name} | {found['median']:.3f} ({found['low']:.3f} to {found['high']:.3f}) |")
    return "\n".join(lines)


if __name__ == "__main__":
    publish("startup", lambda: measure(int(sys.argv[1]) if len(sys.argv) > 1 else 15), markdown)
