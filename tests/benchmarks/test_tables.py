"""The committed tables are what the benchmarks make of the committed figures."""

import importlib
import json
from pathlib import Path

import pytest

from benchmarks.tools.measure import RESULTS, describe_machine, interleaved, spread
from benchmarks.tools.photographs import jpegs


@pytest.mark.parametrize("path", sorted(RESULTS.glob("*/*.json")), ids=lambda path: path.stem)
def test_tables_are_of_their_figures(path: Path) -> None:
    module = importlib.import_module(f"benchmarks.{path.stem}")
    report = json.loads(path.read_text())
    text = f"{module.markdown(report).strip()}\n\n{describe_machine(report)}\n"
    assert path.with_suffix(".md").read_text() == text


def test_cases_are_interleaved_and_the_first_round_is_dropped() -> None:
    order: list[str] = []
    found = interleaved({"a": lambda: order.append("a"), "b": lambda: order.append("b")}, 3)
    assert order == ["a", "b"] * 4
    assert found.keys() == {"a", "b"}
    assert spread([1.0, 2.0, 3.0]) == {"median": 2.0, "low": 1.0, "high": 3.0}


def test_photographs_are_of_their_size_and_differ() -> None:
    from clipita.images.pixels import Preprocessing, load_pixels

    files = jpegs(60, 40, 6)
    assert len(set(files)) == 6
    whole = Preprocessing(40, "squash", "nearest", (127.5,) * 3, (127.5,) * 3)
    assert all(load_pixels(data, whole, name="a").std() > 10 for data in files)
