"""Parts that all benchmarks share: interleaved timing, a record of the machine and its software, and result files."""

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # startup.py measures processes that import as little as they can
    from clipita.backends.onnx import OnnxBackend
    from clipita.bundles.bundle import Bundle

RESULTS = Path(__file__).parents[1] / "results"
PHOTOS = sorted((Path(__file__).parents[2] / "examples" / "photos").glob("*.jpg"))
THREADS = len(os.sched_getaffinity(0))
PACKAGES = (
    "clipita",
    "numpy",
    "onnx",
    "onnxruntime",
    "openvino",
    "nncf",
    "jax",
    "flax",
    "grain",
    "pillow",
    "safetensors",
    "tokenizers",
    "torch",
    "transformers",
    "open_clip_torch",
    "pyarrow",
    "array_record",
    "py3langid",
)  # fmt: skip

Figures = dict[str, Any]  # whatever a benchmark measured, as it is written to JSON
Spread = dict[str, float]  # "median", and the quartiles "low" and "high", in seconds


def interleaved(cases: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, Spread]:
    """Time every case once a round, so that other work on the machine slows all cases alike.

    Args:
        cases: Name to the function that is timed.
        rounds: How many rounds count; one more is run before them, and is not counted.
    """
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for number in range(rounds + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if number:
                seconds[name].append(time.perf_counter() - start)
    return {name: spread(values) for name, values in seconds.items()}


def spread(values: list[float]) -> Spread:
    """Return the median and the quartiles of measured seconds."""
    low, median, high = statistics.quantiles(values, n=4)
    return {"median": median, "low": low, "high": high}


def process(code: str, *arguments: object) -> str:
    """Run code in a Python process of its own, and return what it prints."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    environment = os.environ | {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_VERBOSITY": "error", "TQDM_DISABLE": "1"}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment)
    return done.stdout


def open_towers(
    source: str | Path, *, precision: str | None = None, cache_dir: str | Path | None = None, threads: int | None = None
) -> tuple["Bundle", "OnnxBackend"]:
    """Open a model as `clipita.load` does, and return its bundle and its towers on ONNX Runtime, without decoding.

    Args:
        source: An embedded model, a folder or a name on the hub.
        precision: None means what the bundle recommends.
        cache_dir: Where bundles that are made here are kept.
        threads: Within one operator; None means the CPUs that this process may use.
    """
    from clipita.backends.onnx import OnnxBackend
    from clipita.loading.open import open_model

    bundle = open_model(source, precision=precision, cache_dir=cache_dir).bundle
    precision = precision or bundle.config.recommended_precision
    return bundle, OnnxBackend(bundle, precision=precision, threads=threads)


def machine() -> Figures:
    """Describe this machine: processor, threads, the load before the run, and versions of packages."""
    about = Path("/proc/cpuinfo").read_text()
    name = re.search(r"model name\s*: (.*)", about)
    flags = re.search(r"flags\s*: (.*)", about)
    known = ("avx2", "avx512f", "avx512_vnni", "avx_vnni", "amx_int8", "amx_bf16")
    kinds = [kind for kind in known if flags and kind in flags[1].split()]
    processor = name[1] if name else platform.machine()
    return {
        "kind": _kind(processor, kinds),
        "processor": f"{processor}, {THREADS} CPUs, {' '.join(kinds)}",
        "measured": time.strftime("%Y-%m-%d"),
        "threads": THREADS,
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
    }


def _kind(processor: str, flags: list[str]) -> str:
    """Return what decides ratios of speed: who makes the processor, and the widest integers that it multiplies."""
    maker = next((maker for maker in ("AMD", "Intel", "Apple") if maker in processor), platform.machine())
    widest = {"amx_int8": "AMX", "avx512_vnni": "AVX-512 VNNI", "avx_vnni": "AVX VNNI", "avx512f": "AVX-512"}
    return f"{maker} {next((name for flag, name in widest.items() if flag in flags), 'AVX2')}"


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def describe_machine(report: Figures) -> str:
    """Return a sentence on the machine that a report was measured on."""
    found = report["machine"]
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    measured = f", measured {found['measured']}" if "measured" in found else ""
    return (
        f"{found['processor']}, {found['threads']} threads, load {found['load_before']} before{measured}. "
        f"Python {found['python']}, {versions}."
    )


def milliseconds(found: Spread, per: int = 1) -> str:
    """Format the median and quartiles of one item, where a timed run had `per` items."""
    median, low, high = (1000 * found[key] / per for key in ("median", "low", "high"))
    digits = 1 if median < 100 else 0
    return f"{median:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def result_file(name: str, suffix: str) -> Path:
    """Return the path of a benchmark's file of figures (json), table (md) or picture (svg)."""
    return RESULTS / name / f"{name}.{suffix}"


def publish(name: str, measure: Callable[[], Figures], markdown: Callable[[Figures], str]) -> None:
    """Measure, write `result_file(name, "json")` and `result_file(name, "md")`, and print the table."""
    before = machine()
    report = {"machine": before} | measure()
    (RESULTS / name).mkdir(parents=True, exist_ok=True)
    result_file(name, "json").write_text(json.dumps(report, indent=1) + "\n")
    text = f"{markdown(report).strip()}\n\n{describe_machine(report)}\n"
    result_file(name, "md").write_text(text)
    print(text)
