"""The picture of results/speed.json: python -m benchmarks.plot. Needs matplotlib."""

import json
from pathlib import Path

from benchmarks._measure import RESULTS, Report


def speed(report: Report, path: Path) -> None:
    """A bar for each row that is compared with a peer: how many times as fast clipita is."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.fonttype"] = "none"  # text stays text
    matplotlib.rcParams["svg.hashsalt"] = "clipita"  # the same bytes for the same figures
    from matplotlib import pyplot

    rows = [row for row in report["rows"] if row.get("unit") == "x"][::-1]
    figure, axes = pyplot.subplots(figsize=(9, 0.42 * len(rows) + 1.1), layout="constrained")
    bars = axes.barh([f"{row['row']}\nagainst {row['against']}" for row in rows], [row["value"] for row in rows])
    axes.bar_label(bars, [f"{row['value']:.0f} x" if row["value"] >= 20 else f"{row['value']:.1f} x" for row in rows])
    axes.set_xscale("log")
    axes.axvline(1, color="black", linewidth=1)
    axes.set_xlim(0.8, 4 * max(row["value"] for row in rows))
    axes.set_xlabel("times as fast, on the same machine, weights and threads (logarithmic)")
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)


if __name__ == "__main__":
    speed(json.loads((RESULTS / "speed.json").read_text()), RESULTS / "speed.svg")
