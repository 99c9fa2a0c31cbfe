"""Draw the pictures of results.

    python -m benchmarks.plot

That of benchmarks.speed is drawn by the benchmark itself, from the figures of several machines. Needs matplotlib.
"""

import json
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from benchmarks.tools.measure import Figures, result_file

ABLATION_COLUMNS = {
    "loss": "validation loss",
    "tiny_imagenet": "Tiny ImageNet, top-1",
    "caltech101": "Caltech-101, top-1",
}


def speed(ratios: Mapping[str, float], path: Path) -> None:
    """Draw how many times as fast clipita is: a bar for each comparison, slower ones in another color."""
    pyplot = _pyplot()
    names, values = list(ratios)[::-1], list(ratios.values())[::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(names) + 1.1), layout="constrained")
    bars = axes.barh(names, [value - 1 for value in values], left=1, color=["C0" if v >= 1 else "C1" for v in values])
    labels = [f"{value:.0f} x" if value >= 20 else f"{value:.2g} x" for value in values]
    axes.bar_label(bars, labels, padding=3)
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0.3 * min(values), 4 * max(values))
    axes.margins(y=0.01)
    axes.set_xlabel("times as fast (logarithmic), the lowest of all kinds of processor")
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def ablation(report: Figures, path: Path) -> None:
    """Draw a panel for each score: a point for each seed, and a line at their mean, choice by choice."""
    pyplot = _pyplot()
    names = list(report["scores"])
    figure, panels = pyplot.subplots(1, len(ABLATION_COLUMNS), figsize=(10, 0.42 * len(names) + 1.2), sharey=True)
    figure.set_layout_engine("constrained")
    for axes, (key, title) in zip(panels, ABLATION_COLUMNS.items(), strict=True):
        for place, scores in enumerate(report["scores"].values()):
            values = [score[key] * (1 if key == "loss" else 100) for score in scores]
            axes.plot(values, [place] * len(values), "o", color="C0", alpha=0.6, markersize=5, markeredgewidth=0)
            axes.plot(sum(values) / len(values), place, "|", color="black", markersize=14)
        axes.set_xlabel(title if key == "loss" else f"{title}, %", fontsize=8)
        axes.tick_params(labelsize=8)
        axes.grid(axis="x", alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
    panels[0].set_yticks(range(len(names)), names)
    panels[0].invert_yaxis()
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def search(report: Figures, path: Path) -> None:
    """Draw what one query of an archive takes, by number of photographs: clipita's product and those of its peers."""
    pyplot = _pyplot()
    products = report["search"]["products"]
    names = list(next(iter(products.values()))["seconds"])
    figure, axes = pyplot.subplots(figsize=(9, 0.5 * len(names) + 1.3), layout="constrained")
    height = 0.8 / len(products)
    for number, (count, product) in enumerate(products.items()):
        timed = {name: 1e3 * product["seconds"][name]["median"] for name in names if name in product["seconds"]}
        places = [names.index(name) + height * (number - (len(products) - 1) / 2) for name in timed]
        bars = axes.barh(places, list(timed.values()), height, label=f"{count} photographs")
        axes.bar_label(bars, [f"{value:.1f} ms" for value in timed.values()], padding=2, fontsize=8)
    axes.set_yticks(range(len(names)), names)
    axes.invert_yaxis()
    axes.set_xscale("log")
    axes.set_xlim(0.5, 3 * axes.get_xlim()[1])
    axes.set_xlabel("milliseconds for the 20 best of one query, on two threads (logarithmic)")
    axes.legend(frameon=False, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


def _pyplot() -> Any:
    matplotlib: Any = import_module("matplotlib")  # in no extra of clipita
    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # keep text as text, not as outlines
    matplotlib.rcParams["svg.hashsalt"] = "clipita"  # same figures, same bytes
    return import_module("matplotlib.pyplot")


if __name__ == "__main__":
    for name, draw in (("ablation", ablation), ("search", search)):
        draw(json.loads(result_file(name, "json").read_text()), result_file(name, "svg"))
