"""Draw counts as inline SVG and as bars; the style sheet of the page gives the colors."""

from collections.abc import Sequence
from html import escape

from clipita_train.data.report.gather import Histogram

Count = tuple[str, str, int]  # a class of the style sheet, a name, a count

WIDTH, HEIGHT = 420, 190
_LEFT, _TOP, _BOTTOM = 46, 12, 26  # margins


def histogram(found: Histogram) -> str:
    """Draw a histogram with bars of equal width, kept rows below and dropped rows on top."""
    edges = found.quantity.edges
    total = found.kept + found.dropped
    step = _step(int(total.max()))
    top = max(1, -(-int(total.max()) // step)) * step
    width, height = (WIDTH - _LEFT) / len(edges), HEIGHT - _TOP - _BOTTOM
    parts = [f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(found.quantity.title)}">']
    for value in range(0, top + 1, step):
        y = _TOP + height * (1 - value / top)
        parts.append(f'<line class="grid" x1="{_LEFT}" x2="{WIDTH}" y1="{y:.1f}" y2="{y:.1f}"/>')
        parts.append(f'<text x="{_LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{short(value)}</text>')
    every = -(-len(edges) // 9)  # so that labels do not touch
    for place, (kept, dropped) in enumerate(zip(found.kept.tolist(), found.dropped.tolist(), strict=True)):
        x = _LEFT + place * width
        upper = f"{edges[place + 1]:g}" if place + 1 < len(edges) else "more"
        parts.append(f"<g><title>{edges[place]:g} to {upper}: {kept:,} kept, {dropped:,} not</title>")
        base = _TOP + height
        for name, count in (("kept", kept), ("dropped", dropped)):
            tall = height * count / top
            base -= tall
            if count:
                box = f'x="{x + 1:.1f}" y="{base:.1f}" width="{width - 2:.1f}" height="{max(tall, 1):.1f}"'
                parts.append(f'<rect class="{name}" {box}/>')
        parts.append("</g>")
        if place % every == 0:
            parts.append(f'<text x="{x:.1f}" y="{HEIGHT - 8}">{edges[place]:g}</text>')
    return "".join(parts) + "</svg>"


def parts_of(counts: Sequence[Count]) -> str:
    """Draw one bar, divided by the counts."""
    total = sum(count for *_, count in counts) or 1
    spans = [
        f'<span class="{kind}" style="width:{100 * count / total:.3f}%" title="{escape(name)}: {count:,}"></span>'
        for kind, name, count in counts
        if count
    ]
    return f'<div class="parts">{"".join(spans)}</div>'


def bars(counts: Sequence[Count]) -> str:
    """Draw a line with a bar for each count; the longest bar takes the whole width."""
    most = max((count for *_, count in counts), default=0) or 1
    rows = [
        f'<tr><th scope="row"><bdi>{escape(name)}</bdi></th><td class="number">{count:,}</td>'
        f'<td class="bar"><span class="{kind}" style="width:{100 * count / most:.2f}%"></span></td></tr>'
        for kind, name, count in counts
    ]
    return f'<table class="bars">{"".join(rows)}</table>'


def short(count: int) -> str:
    """Abbreviate a count: 12,000 becomes "12k"."""
    for size, unit in ((1_000_000, "M"), (1_000, "k")):
        if count >= size:
            return f"{count / size:.3g}{unit}"
    return str(count)


def _step(most: int) -> int:
    """Return the distance between grid lines: 1, 2 or 5 times a power of ten, such that two to five lines are drawn."""
    power = 1
    while True:
        for step in (power, 2 * power, 5 * power):
            if most <= 4 * step:
                return step
        power *= 10
