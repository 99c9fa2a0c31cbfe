"""Time the index and the search of photo archives.

    python -m benchmarks.search --rclip OTHER-VENV/bin/python

With `pip install usearch` its approximate search stands beside. rclip has an environment of its own; its model is a
download that is not made here, so vectors are given to it, and its times are those of all else. Photographs of
500 x 375 are really embedded; archives of 100,000 and of a million are vectors without files, or empty files with rows,
since an update looks at no more than the sizes and times of files that have not changed.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np

import clipita
from benchmarks import plot
from benchmarks.tools.measure import THREADS, Figures, Spread, interleaved, process, publish, result_file, spread
from benchmarks.tools.photographs import jpegs
from clipita.images.photo_files import Stamp
from clipita.search.cosines import best, cosines
from clipita.search.index import Index
from clipita.search.store import Content, Row, Store
from clipita.search.update import hash_of

PHOTOGRAPHS = 512
MANY, MILLION, RENAMED = 100_000, 1_000_000, 10_000
SENTENCE = "una spiaggia al tramonto"

_RESIDENT = """
import re, sys
from pathlib import Path
from clipita.search.index import Index
index = Index.open(sys.argv[1])
index.search("un gatto nero", show_all=True)
print(re.search(r"VmRSS:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""

# rclip over the same files, with random vectors of its width: folder, its database -> figures as JSON.
_RCLIP = """
import importlib.metadata, json, os, sys, time
from pathlib import Path
import numpy as np
from rclip import db, main, model

folder, place = sys.argv[1:]
random = np.random.default_rng(0)

def vector():
    values = random.standard_normal(model.Model.VECTOR_SIZE, np.float32)
    return values / np.linalg.norm(values)

class WithoutTowers(model.Model):
    def compute_text_features(self, text):
        return np.stack([vector() for _ in text])

database = db.DB(place)
for number, path in enumerate(sorted(Path(folder).rglob("*.jpg"))):
    status = path.stat()
    database.upsert_image(
        db.NewImage(
            filepath=str(path), modified_at=status.st_mtime, size=status.st_size, vector=vector().tobytes(),
            hash=f"{number:032x}",
        ),
        commit=False,
    )
database.commit()
rclip = main.RClip(WithoutTowers(), database, 8, None)

def timed(run):
    start = time.perf_counter()
    run()
    return time.perf_counter() - start

unchanged = [timed(lambda: rclip.ensure_index(folder)) for _ in range(3)]
held = [timed(lambda: rclip.search("a beach at sunset", folder, 20)) for _ in range(6)][1:]
version = importlib.metadata.version("rclip")
print(json.dumps({"version": version, "unchanged": unchanged, "held": held, "bytes": os.path.getsize(place)}))
"""


def measure(rclip: str | None) -> Figures:
    """Return all figures; `rclip` is the Python of an environment that has it."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        return {
            "photographs": PHOTOGRAPHS,
            "indexing": indexing(folder),
            "updates": updates(folder),
            "search": searches(folder),
            "rclip": None if rclip is None else _rclip(rclip, folder),
        }


def _rclip(python: str, folder: Path) -> dict[str, Any]:
    command = [python, "-c", _RCLIP, str(folder / "unchanged"), str(folder / "rclip.sqlite")]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return json.loads(done.stdout)


def indexing(folder: Path) -> dict[str, Spread]:
    """Time an index of new photographs, and the same photographs through `iter_encode_image`."""
    photos = folder / "photographs"
    photos.mkdir()
    for number, data in enumerate(jpegs(500, 375, PHOTOGRAPHS)):
        (photos / f"{number}.jpg").write_bytes(data)
    model = clipita.load()
    paths = sorted(photos.iterdir())

    def index() -> None:
        shutil.rmtree(photos / ".clipita", ignore_errors=True)
        assert Index.open(photos, model=model).update().embedded == PHOTOGRAPHS

    def encode() -> None:
        assert all(result.error is None for result in model.iter_encode_image(paths))

    return interleaved({"iter_encode_image": encode, "Index.update": index}, rounds=3)


def updates(folder: Path) -> dict[str, Any]:
    """Time updates that embed nothing: of files that did not change, and of a folder that was renamed."""
    photos = folder / "unchanged"
    model = clipita.load()
    random = np.random.default_rng(0)
    for number in range(MANY):
        path = photos / f"{number // 1000:03}" / f"IMG_{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only files that will be renamed are read.
        path.write_bytes(random.bytes(100_000) if number < RENAMED else b"")
    index = Index.open(photos, model=model)
    _fill(index, photos, MANY)
    seconds = {"unchanged": [_timed(index) for _ in range(5)]}
    (photos / "000").rename(photos / "rinominata")
    for number in range(1, RENAMED // 1000):
        (photos / f"{number:03}").rename(photos / "rinominata" / f"{number:03}")
    start = time.perf_counter()
    summary = index.update()
    seconds["renamed"] = [time.perf_counter() - start]
    assert (summary.moved, summary.embedded) == (RENAMED, 0), summary
    size = sum(path.stat().st_size for path in index.folder.iterdir())
    return {"seconds": seconds, "bytes": size, "photographs": MANY, "renamed": RENAMED}


def _timed(index: Index) -> float:
    start = time.perf_counter()
    assert index.update().unchanged == MANY
    return time.perf_counter() - start


def _fill(index: Index, photos: Path, count: int) -> None:
    """Write rows and vectors of files as an update would, without embedding them."""
    random = np.random.default_rng(1)
    with _new_store(index).writing() as writer:
        for number in range(count):
            path = photos / f"{number // 1000:03}" / f"IMG_{number:06}.jpg"
            status = path.stat()
            digest = hash_of(path) if status.st_size else number.to_bytes(16)
            vector = random.standard_normal(index.model.embed_dim, np.float32)
            content = writer.add(Content(digest, (vector / np.linalg.norm(vector)).astype(np.float32), None, 500, 375))
            key = path.relative_to(photos).as_posix()
            writer.put(key, Row(Stamp(status.st_size, status.st_mtime_ns), content, None))
        writer.commit()


def _new_store(index: Index) -> Store:
    return Store.create(index.folder, index.settings_of_new())


def searches(folder: Path) -> dict[str, Any]:
    """Time a search as a process and in a held `Index`, and beside it NumPy and usearch over the same vectors."""
    archive = folder / "unchanged"
    index = Index.open(archive)
    command = [sys.executable, "-c", "from clipita.cli.main import main; main()"]
    command += ["search", SENTENCE, "--all", "--in", str(archive), "--json"]
    cold: list[float] = []
    for _ in range(11):
        start = time.perf_counter()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        cold.append(time.perf_counter() - start)
        assert len(json.loads(done.stdout)["results"]) == 20, done.stderr
    held = interleaved({"held": lambda: index.search(SENTENCE, show_all=True)}, rounds=20)["held"]
    query = index.model.encode_text(SENTENCE)[None]
    products = {f"{count:,}": _products(count, query) for count in (MANY, MILLION)}
    return {
        "process": spread(cold[1:]),
        "held": held,
        "products": products,
        "resident_megabytes": int(process(_RESIDENT, archive)) / 1000,
    }


def _products(count: int, query: np.ndarray[Any, np.dtype[np.float32]]) -> dict[str, Any]:
    random = np.random.default_rng(2)
    width = query.shape[1]
    half = np.empty((count, width), np.float16)
    for start in range(0, count, 100_000):
        block = random.standard_normal((100_000, width), np.float32)
        half[start : start + 100_000] = block / np.linalg.norm(block, axis=1, keepdims=True)
    whole = half.astype(np.float32)
    cases: dict[str, Any] = {
        "clipita, float16": lambda: best(cosines(half, query)[:, 0], 20),
        "NumPy, float32": lambda: np.argpartition(-(whole @ query[0]), 20)[:20],
        "NumPy, float16 converted": lambda: np.argpartition(-(half.astype(np.float32) @ query[0]), 20)[:20],
    }
    recall: dict[str, float] = {}
    if count == MANY and find_spec("usearch"):  # of a million its graph takes more than five minutes on two cores
        from usearch.index import Index as Approximate  # pyright: ignore[reportMissingImports]

        approximate: Any = Approximate(ndim=width, metric="cos", dtype="f16")
        start = time.perf_counter()
        approximate.add(np.arange(count), whole, threads=THREADS)
        recall["seconds to build"] = time.perf_counter() - start
        some = whole[random.integers(0, count, 100)] + random.standard_normal((100, width), np.float32) / 16
        some /= np.linalg.norm(some, axis=1, keepdims=True)
        exact = [set(best(row, 20).tolist()) for row in cosines(half, some.astype(np.float32)).T]
        found = [set(approximate.search(row, 20).keys.tolist()) for row in some]
        recall["recall at 20"] = float(np.mean([len(one & two) / 20 for one, two in zip(exact, found, strict=True)]))
        cases["usearch, approximate"] = lambda: approximate.search(query[0], 20)
    return {"seconds": interleaved(cases, rounds=11), "usearch": recall}


def markdown(report: Figures) -> str:
    """Return the tables."""
    indexing, searched = report["indexing"], report["search"]
    encode, index = indexing["iter_encode_image"]["median"], indexing["Index.update"]["median"]
    per_second = report["photographs"] / index
    lines = [
        "# Index and search",
        "",
        f"Indexing {report['photographs']} new JPEG photographs of 500 x 375 takes {index / encode:.2f} times as long "
        f"as `iter_encode_image` over the same files ({_range(indexing['Index.update'])} against "
        f"{_range(indexing['iter_encode_image'])}): {per_second:.0f} photographs a second.",
        "",
        *_archive_table(report),
        "",
        "The product of one query with all vectors, and its 20 best:",
        "",
        "| | " + " | ".join(searched["products"]) + " |",
        "|---|" + "---|" * len(searched["products"]),
    ]
    names = next(iter(searched["products"].values()))["seconds"]
    for name in names:
        timed = [each["seconds"] for each in searched["products"].values()]
        cells = [_range(seconds[name]) if name in seconds else "" for seconds in timed]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    for count, each in searched["products"].items():
        if each["usearch"]:
            lines += [
                "",
                f"usearch over {count}: {each['usearch']['recall at 20']:.0%} of the 20 best are found; its graph "
                f"takes {each['usearch']['seconds to build']:.0f} s to build. The others find all of them.",
            ]
    return "\n".join(lines)


def _archive_table(report: Figures) -> list[str]:
    """Return the table of an archive of 100,000, with rclip's column where it was measured."""
    updated, searched, rclip = report["updates"], report["search"], report["rclip"]
    unchanged = updated["seconds"]["unchanged"]
    rows = {
        "update, nothing has changed": f"{min(unchanged):.1f} to {max(unchanged):.1f} s",
        f"update after {updated['renamed']:,} of them (100 kB each) were renamed; none is embedded": (
            f"{updated['seconds']['renamed'][0]:.1f} s"
        ),
        "the index on the disk": f"{updated['bytes'] / 1e6:.1f} MB",
        "`clipita search` as a process": _range(searched["process"]),
        "its resident memory": f"{searched['resident_megabytes']:.0f} MB",
        "a search with an index that is held": _range(searched["held"]),
    }
    if rclip is None:
        return ["| an archive of 100,000 | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items())]
    beside = {
        "update, nothing has changed": f"{min(rclip['unchanged']):.1f} to {max(rclip['unchanged']):.1f} s",
        "the index on the disk": f"{rclip['bytes'] / 1e6:.1f} MB",
        "a search with an index that is held": f"{_range(spread(rclip['held']))}, without the model",
    }
    return [
        f"| an archive of 100,000 | clipita | rclip {rclip['version']} |",
        "|---|---|---|",
        *(f"| {name} | {value} | {beside.get(name, '')} |" for name, value in rows.items()),
    ]


def _range(seconds: Spread) -> str:
    """Return a median and its quartiles in the unit that suits them."""
    if seconds["median"] >= 1:
        return f"{seconds['median']:.2f} s ({seconds['low']:.2f} to {seconds['high']:.2f})"
    return f"{1e3 * seconds['median']:.1f} ms ({1e3 * seconds['low']:.1f} to {1e3 * seconds['high']:.1f})"


if __name__ == "__main__":
    os.environ.pop("CLIPITA_MODEL", None)
    parser = argparse.ArgumentParser(description="Time the index and the search.")
    parser.add_argument("--rclip", metavar="PYTHON", help="the Python of an environment that has rclip")
    publish("search", partial(measure, parser.parse_args().rclip), markdown)
    plot.search(json.loads(result_file("search", "json").read_text()), result_file("search", "svg"))
