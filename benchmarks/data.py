"""Measure each step of `clipita-train data build` in rows a second.

    OMP_NUM_THREADS=1 python -m benchmarks.data

Seconds are processor time of one thread. A real build runs its steps in many processes, and wall-clock time would
include other work on the machine. Photographs have 500 x 375 pixels, as in Flickr8k, or 1024 x 768. Each row has two
captions, taken from the Italian descriptions in data/labels.
"""

import os
import random
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pyarrow as pa
from clipita_train.data.builder.judge import Judge
from clipita_train.data.builder.models import ProperNouns, Scores
from clipita_train.data.builder.read import Read
from clipita_train.data.builder.recipe import Rules, Source
from clipita_train.data.builder.steps import Images, Signatures, Step, Text
from clipita_train.data.concepts import load_ontology
from clipita_train.data.near_duplicates.groups import leaders
from clipita_train.data.near_duplicates.min_hash import near_signatures
from clipita_train.data.near_duplicates.perceptual_hash import near_hashes
from clipita_train.data.shards import Record, ShardReader, write_shards
from clipita_train.tagger.taggers import WEIGHTS

from benchmarks.tools.measure import Figures, publish, spread
from benchmarks.tools.photographs import jpegs

ROWS = 256
SIZES = {"500 x 375": (500, 375), "1024 x 768": (1024, 768)}
COMPARED = 100_000
ROUNDS = 5
SCALES = {"CLIP-Italian's 1.4 M pairs": 1.4e6, "WIT's 37 M rows": 37e6, "1 B pairs": 1e9}
BUILD = ("read WIT", "text", "signatures", "judge", "images, 500 x 375", "write shards, 500 x 375")

Case = tuple[int, Callable[[], object]]  # the number of rows, and the function that works on all of them


def measure() -> Figures:
    """Time each step by itself, in this process."""
    if os.environ.get("OMP_NUM_THREADS") != "1":
        raise SystemExit("measure one thread: OMP_NUM_THREADS=1 python -m benchmarks.data")
    with tempfile.TemporaryDirectory() as folder:
        rows = [_timed(name, *case) for name, case in _cases(Path(folder))]
    return {"rows": rows}


def _timed(name: str, count: int, run: Callable[[], object]) -> Figures:
    seconds = list[float]()
    for _ in range(ROUNDS + 1):
        start = time.process_time()
        run()
        seconds.append(time.process_time() - start)
    return {"step": name, "rows": count, "seconds": spread(seconds[1:])}


def _cases(folder: Path) -> Iterator[tuple[str, Case]]:
    captions = [text for concept in load_ontology().concepts for text in concept.descriptions][: 2 * ROWS]
    table = pa.table({"captions": [captions[i : i + 2] for i in range(0, 2 * ROWS, 2)]})
    yield "read WIT", _reading(folder, captions)
    for step in (Text(), Signatures(), *([ProperNouns("clipita")] if WEIGHTS.is_file() else [])):
        yield step.name, _step(step, table)
    judged = {"download": [None] * ROWS, "width": [500] * ROWS, "height": [375] * ROWS, "problem": [None] * ROWS}
    yield "judge", _step(Judge(Rules(), "it"), _with(_with(table, Text().load()(table)), pa.table(judged)))
    for size, (width, height) in SIZES.items():
        files = jpegs(width, height, ROWS // 4) * 4
        images = pa.table({"path": [None] * ROWS, "file": [None] * ROWS, "bytes": files, "sha256": [""] * ROWS})
        yield f"images, {size}", _step(Images(folder, folder), images)
        if size == "500 x 375":
            yield f"scores by clipita-mini, {size}", _step(Scores("clipita-mini", folder, folder), _with(table, images))
        records = [Record(f"x/{i}", data, tuple(captions[2 * i : 2 * i + 2])) for i, data in enumerate(files)]
        write_shards(records, folder / size)
        yield f"write shards, {size}", (ROWS, lambda records=records: write_shards(records, folder / "out"))
        order, reader = random.Random(0).sample(range(ROWS), ROWS), ShardReader(folder / size)
        yield f"read shards in any order, {size}", (ROWS, lambda order=order, reader=reader: [reader[i] for i in order])
    yield from _comparing()


def _reading(folder: Path, captions: list[str]) -> Case:
    line = "it\t\thttps://upload.wikimedia.org/{}.jpg\t\t\t\t{}" + "\t" * 10
    lines = [line.format(i, captions[i % len(captions)]) for i in range(8 * ROWS)]
    (folder / "wit.tsv").write_text("\n".join(lines) + "\n")
    read = Read(Source("wit", "wit", ("wit.tsv",)), folder / "wit.tsv", folder, 1024, folder / "work")
    return len(lines), read.run


def _step(step: Step, table: pa.Table) -> Case:
    function = step.load()
    return len(table), lambda: function(table)


def _with(left: pa.Table, right: pa.Table) -> pa.Table:
    for name in right.column_names:
        left = left.append_column(name, right[name])
    return left


def _comparing() -> Iterator[tuple[str, Case]]:
    rng = np.random.default_rng(0)
    for count in (COMPARED, 10 * COMPARED):
        hashes = np.unique(rng.integers(0, 1 << 63, count, np.uint64))
        yield f"compare {count:,} photographs", (count, lambda h=hashes: leaders(len(h), near_hashes(h)))
    signatures = rng.integers(0, 1 << 32, (COMPARED, 64), np.uint32)
    yield f"compare {COMPARED:,} captions", (COMPARED, lambda: leaders(COMPARED, near_signatures(signatures)))


def markdown(report: Figures) -> str:
    """Return the table of rates, and the hours that whole data sets would take, as Markdown."""
    rate = {row["step"]: row["rows"] / row["seconds"]["median"] for row in report["rows"]}
    lines = [
        "# Building a data set",
        "",
        "Rows a second of one processor, one thread; median and quartiles of five. A row has two captions of about ten "
        "words.",
        "",
        "| step | rows/s |",
        "|---|---|",
    ]
    for row in report["rows"]:
        low, high = (row["rows"] / row["seconds"][key] for key in ("high", "low"))
        lines.append(f"| {row['step']} | {rate[row['step']]:,.0f} ({low:,.0f} to {high:,.0f}) |")
    each = sum(1 / rate[step] for step in BUILD)
    size = {name: count * 50e3 / 1e12 for name, count in SCALES.items()}
    lines += [
        "",
        f"Together a row takes {1000 * each:.1f} ms ({', '.join(BUILD)}), most of it for its photograph. So, at 50 KB "
        "each, and without downloading, translating and models:",
        "",
        "| rows | processor hours | hours on 2 | on 64 | shards |",
        "|---|---|---|---|---|",
    ]
    for name, count in SCALES.items():
        hours = [_hours(count * each / processors) for processors in (1, 2, 64)]
        lines.append(f"| {name} | {' | '.join(hours)} | {size[name]:,.2f} TB |")
    return "\n".join(lines)


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:,.0f}" if seconds >= 36_000 else f"{seconds / 3600:.2g}"


if __name__ == "__main__":
    publish("data", measure, markdown)
