"""How long a user waits at the start: python -m benchmarks.start [RUNS]

Whole processes, interleaved: the import, and the import with the first answer of the embedded model,
beside `import numpy` (which clipita cannot do without) and, where it is installed, `import torch`.
Writes benchmarks/results/start.json.
"""

import json
import os
import platform
import statistics
import subprocess
import sys
import time
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

PHOTO = Path(__file__).parent.parent / "examples" / "photos" / "gatto.jpg"
RESULTS = Path(__file__).parent / "results"
CASES = {
    "python": "pass",
    "import numpy": "import numpy",
    "import clipita": "import clipita",
    "first answer": f"import clipita; clipita.zero_shot({str(PHOTO)!r}, ['gatto', 'cane'])",
} | ({"import torch": "import torch"} if find_spec("torch") else {})


def main() -> None:
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 15
    seconds: dict[str, list[float]] = {name: [] for name in CASES}
    for run in range(runs + 1):
        for name, code in CASES.items():
            start = time.perf_counter()
            subprocess.run([sys.executable, "-c", code], check=True)
            if run:  # the first round warms the file cache
                seconds[name].append(time.perf_counter() - start)
    quartiles = {name: statistics.quantiles(values, n=4) for name, values in seconds.items()}
    report = {
        "machine": f"{platform.machine()}, {len(os.sched_getaffinity(0))} CPUs",
        "versions": {name: version(name) for name in ("clipita", "numpy", "onnxruntime", "pillow", "tokenizers")}
        | {"python": platform.python_version()},
        "runs": runs,
        "seconds": {name: {"median": q[1], "quartiles": [q[0], q[2]]} for name, q in quartiles.items()},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "start.json").write_text(json.dumps(report, indent=1) + "\n")
    for name, (low, median, high) in quartiles.items():
        print(f"{name:16} {median:6.3f} s  ({low:.3f} to {high:.3f})")


if __name__ == "__main__":
    main()
