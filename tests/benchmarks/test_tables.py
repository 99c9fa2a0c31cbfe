"""The committed tables are what the benchmarks make of the committed figures."""

import importlib
import json
from pathlib import Path

import pytest

from benchmarks import speed
from benchmarks.tools.measure import RESULTS, Figures, describe_machine, interleaved, spread
from benchmarks.tools.photographs import jpegs


@pytest.mark.parametrize(
    "path", sorted(path for path in RESULTS.glob("*/*.json") if path.parent.name != "speed"), ids=lambda path: path.stem
)
def test_tables_are_of_their_figures(path: Path) -> None:
    module = importlib.import_module(f"benchmarks.{path.stem}")
    report = json.loads(path.read_text())
    text = f"{module.markdown(report).strip()}\n\n{describe_machine(report)}\n"
    assert path.with_suffix(".md").read_text() == text


def test_the_table_of_speed_is_of_the_figures_of_all_processors() -> None:
    reports = [json.loads(path.read_text()) for path in sorted((RESULTS / "speed").glob("*.json"))]
    assert reports
    assert (RESULTS / "speed" / "speed.md").read_text() == speed.markdown(reports)


def test_the_lowest_ratio_of_all_processors_stands_first() -> None:
    def report(kind: str, ratio: float, seconds: float) -> Figures:
        time = {"median": 0.01, "low": 0.01, "high": 0.02}
        rows = [
            {"row": "a", "clipita": time, "peer": time, "per": 1, "against": "b", "value": ratio, "unit": "x",
             "target": 2},
            {"row": "start", "clipita": time, "per": 1, "value": seconds, "unit": "s, at most", "target": 0.6},
        ]  # fmt: skip
        about = {"kind": kind, "processor": kind, "threads": 2, "load_before": 0, "python": "3.11", "versions": {}}
        return {"machine": about, "rows": rows}

    reports = [report("AMD AVX-512 VNNI", 3.0, 0.3), report("Intel AMX", 0.9, 0.5)]
    text = speed.markdown(reports)
    assert "| a | b | 0.9 x | 3 x | 0.9 x | 2 |" in text
    assert "| start |  | 0.5 s | 0.3 s | 0.5 s | 0.6 at most |" in text
    assert speed.lowest(reports) == {"a\nagainst b": 0.9}


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
