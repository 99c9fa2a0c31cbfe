"""Write what was gathered of a build as one HTML page that needs no scripts, no other files and no connection.

All text from the data is escaped, and a content security policy stands behind that, so that a hostile caption can do
nothing but be read.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib.resources import files
from typing import Any

from clipita_train.data.builder.compare import TRAIN, VALIDATION
from clipita_train.data.builder.store import row_id
from clipita_train.data.report.charts import bars, histogram, parts_of
from clipita_train.data.report.gather import STAGES, Gathered, stage_of

POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
_LANGUAGES = 8
_PLACES = 5


def page(summary: Mapping[str, Any], found: Gathered, pictures: Mapping[str, str]) -> str:
    """Return the page.

    Args:
        summary: The contents of `build.json`.
        found: What was gathered from the manifest.
        pictures: Id of a row to its picture, as `thumbnails` returns them.
    """
    name = summary["recipe"]
    sections = [
        _head(summary, found),
        _section("Where the rows went", _funnel(summary, found)),
        _section("Captions", _captions(found)),
        _section("In numbers", _histograms(found)),
        _section("Languages and licenses", _languages(found)),
        _section("What is kept", _examples(found.kept, pictures, "source", found.splits)),
        _section("What is not, and why", _examples(found.dropped, pictures, "reason", found.rows)),
        _section("Captions that are not kept", _examples(found.caption_dropped, pictures, "caption", found.captions)),
        _section("Copies", _copies(found, pictures)),
        _section("What could not be read", _bad(summary)),
    ]
    style = (files("clipita_train.data.report") / "style.css").read_text("utf-8")
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(name)}: report of a build</title><style>{style}</style></head>"
        f"<body><main>{''.join(sections)}</main></body></html>\n"
    )


def _head(summary: Mapping[str, Any], found: Gathered) -> str:
    bad = sum(one["count"] for source in summary["sources"].values() for one in source["bad"].values())
    kept = sum(count for (_, reason), count in found.rows.items() if not reason)
    splits = Counter[str]()
    for (_, split), count in found.splits.items():
        splits[split] += count
    tiles = [
        ("rows read", found.rows.total(), f"and {bad:,} that could not be"),
        ("photographs kept", kept, f"{splits[TRAIN]:,} train, {splits[VALIDATION]:,} validation"),
        ("captions kept", found.captions_kept.total(), f"of {found.captions.total():,}"),
        ("copies left out", sum(size - 1 for size in found.group_sizes.elements()), _groups_in_words(found)),
    ]
    cells = [f'<div class="tile"><b>{n:,}</b><span>{what}</span><small>{more}</small></div>' for what, n, more in tiles]
    return (
        f'<header><h1>{escape(summary["recipe"])}</h1><p class="note">Build {escape(summary["build"])}, from '
        f'{len({source for source, _ in found.rows})} sources</p><div class="tiles">{"".join(cells)}</div></header>'
    )


def _section(title: str, content: str) -> str:
    return f"<section><h2>{title}</h2>{content}</section>" if content else ""


def _kind(stage: str) -> str:
    return f"stage-{list(STAGES).index(stage)}"


def _funnel(summary: Mapping[str, Any], found: Gathered) -> str:
    """Draw a bar for each source, and a table of the rows in and out of each step."""
    stages = [stage for stage in STAGES if any(stage_of(reason) == stage for _, reason in found.rows if reason)]
    legend = [(TRAIN, "kept for training"), (VALIDATION, "kept for validation")] + [(_kind(s), s) for s in stages]
    keys = "".join(f'<span><i class="{kind}"></i>{name}</span>' for kind, name in legend)
    head = "".join(f"<th>{stage}</th>" for stage in stages)
    lines, drawn = [], []
    for source in dict.fromkeys(source for source, _ in found.rows):
        reasons = {reason: count for (one, reason), count in found.rows.items() if one == source}
        dropped = Counter[str]()
        for reason, count in reasons.items():
            dropped[stage_of(reason) if reason else ""] += count
        kept = [(split, f"kept for {split}", found.splits[source, split]) for split in (TRAIN, VALIDATION)]
        bar = parts_of([*kept, *((_kind(stage), stage, dropped[stage]) for stage in stages)])
        drawn.append(f'<div class="funnel"><b><bdi>{escape(source)}</bdi></b>{bar}</div>')
        left = sum(reasons.values())
        bad = sum(one["count"] for one in summary["sources"].get(source, {"bad": {}})["bad"].values())
        cells = [f"<td>{left:,}{f' <small>+ {bad:,} bad</small>' if bad else ''}</td>"]
        for stage in stages:
            left -= dropped[stage]
            cells.append(f"<td>{left:,}{f' <small>&minus;{dropped[stage]:,}</small>' if dropped[stage] else ''}</td>")
        lines.append(f'<tr><th scope="row"><bdi>{escape(source)}</bdi></th>{"".join(cells)}</tr>')
    table = f"<table><tr><th></th><th>read</th>{head}</tr>{''.join(lines)}</table>"
    note = '<p class="note">Rows after each step, and how many it took.</p>'
    why = Counter[str]()
    for (_, reason), count in found.rows.items():
        if reason:
            why[reason] += count
    reasons_drawn = bars([(_kind(stage_of(reason)), reason, count) for reason, count in why.most_common()])
    return f'<div class="legend">{keys}</div>{"".join(drawn)}<div class="wide">{table}</div>{note}{reasons_drawn}'


def _captions(found: Gathered) -> str:
    why, read = Counter[str](), Counter[str]()
    for (source, reason), count in found.captions.items():
        read[source] += count
        if reason:
            why[reason] += count
    lines = "".join(
        f'<tr><th scope="row"><bdi>{escape(source)}</bdi></th><td>{count:,}</td>'
        f"<td>{found.captions_kept[source]:,}</td></tr>"
        for source, count in read.items()
    )
    table = f"<table><tr><th></th><th>captions read</th><th>kept</th></tr>{lines}</table>"
    drawn = bars([("dropped", *one) for one in why.most_common()])
    reasons = f"<h3>Not kept, and why</h3>{drawn}" if why else ""
    return f'<div class="columns"><div>{table}</div><div>{reasons}</div></div>'


def _histograms(found: Gathered) -> str:
    legend = (
        '<div class="legend"><span><i class="kept"></i>kept</span><span><i class="dropped"></i>not kept</span></div>'
    )
    drawn = [
        f"<figure><figcaption>{one.quantity.title}</figcaption>{histogram(one)}</figure>" for one in found.histograms
    ]
    return f'{legend}<div class="figures">{"".join(drawn)}</div>' if drawn else ""


def _languages(found: Gathered) -> str:
    spoken = Counter[str]()
    for (language, _), count in found.languages.items():
        spoken[language or "no letters"] += count
    first, rest = spoken.most_common(_LANGUAGES), spoken.most_common()[_LANGUAGES:]
    if rest:
        first.append((f"{len(rest)} others", sum(count for _, count in rest)))
    licences = Counter[str]()
    sources: dict[str, set[str]] = {}
    for (licence, source, kept), count in found.licences.items():
        licences[licence] += count if kept else 0
        sources.setdefault(licence, set()).add(source)
    lines = "".join(
        f'<tr><th scope="row"><bdi>{escape(licence)}</bdi></th><td>{count:,}</td>'
        f"<td><bdi>{escape(', '.join(sorted(sources[licence])))}</bdi></td></tr>"
        for licence, count in licences.most_common()
    )
    table = f"<table><tr><th>license</th><th>rows kept</th><th>sources</th></tr>{lines}</table>"
    drawn = bars([("kept", *one) for one in first])
    return f'<div class="columns"><div><h3>Captions by language</h3>{drawn}</div><div>{table}</div></div>'


def _examples(
    groups: Mapping[str, Sequence[dict[str, Any]]], pictures: Mapping[str, str], by: str, counts: Mapping[Any, int]
) -> str:
    """Show example rows under the name of their source or reason, with its total."""
    totals = Counter[str]()
    for (source, other), count in counts.items():
        totals[source if by == "source" else other] += count
    ordered = sorted(groups, key=lambda name: (-totals[name], name))
    parts = []
    for name in ordered:
        cards = _cards(groups[name], pictures, only=name if by == "caption" else None)
        parts.append(f"<h3><bdi>{escape(name)}</bdi> <small>{totals[name]:,}</small></h3>{cards}")
    return "".join(parts)


def _cards(rows: Iterable[dict[str, Any]], pictures: Mapping[str, str], *, only: str | None = None) -> str:
    return f'<div class="cards">{"".join(_card(row, pictures[row_id(row)], only) for row in rows)}</div>'


def _card(row: dict[str, Any], picture: str, only: str | None) -> str:
    """Show a row: picture, captions with their originals, dropped captions crossed out, and where the row is from."""
    if picture.startswith("data:image/jpeg;base64,"):
        image = f'<img src="{escape(picture)}" alt="">'
    else:
        image = f'<div class="none">{escape(picture)}</div>'
    lines = []
    originals = row.get("original") or [None] * len(row["captions"])
    for caption, reason, original in zip(row["captions"], row["caption_reasons"], originals, strict=True):
        if only in (None, reason):
            mark = f' class="not" title="{escape(reason)}"' if reason else ""
            why = f"<em>{escape(reason)}</em>" if reason and only is None else ""
            source = f"<small><bdi>{escape(original)}</bdi></small>" if original is not None else ""
            lines.append(f"<li{mark}><bdi>{escape(caption)}</bdi>{source}{why}</li>")
    return (
        f"<article>{image}<ul>{''.join(lines)}</ul>"
        f"<footer><bdi>{escape(row_id(row))}</bdi>{_about(row)}</footer></article>"
    )


def _about(row: dict[str, Any]) -> str:
    size = f"<br>{row['width']} &times; {row['height']}" if row["width"] and row["height"] else ""
    return size + (f"<br>copy of <bdi>{escape(row['copy_of'])}</bdi>" if row["copy_of"] else "")


def _groups_in_words(found: Gathered) -> str:
    groups = found.group_sizes.total()
    return f"of {groups:,} photographs" if groups else "none were found"


def _copies(found: Gathered, pictures: Mapping[str, str]) -> str:
    """Show groups of copies: first the row that is kept, then those that were dropped as its copies."""
    if not found.groups:
        return ""
    sizes = [(_kind("copies"), f"{size} alike", count) for size, count in sorted(found.group_sizes.items())]
    parts = [f'<p class="note">The first of each stays, if nothing else drops it.</p>{bars(sizes)}<div class="groups">']
    for rows in found.groups:
        parts.append(f'<div class="group{" large" if len(rows) > 2 else ""}">{_cards(rows, pictures)}</div>')
    return f"{''.join(parts)}</div>"


def _bad(summary: Mapping[str, Any]) -> str:
    lines = []
    for source, about in summary["sources"].items():
        for reason, one in about["bad"].items():
            places = ", ".join(one["places"][:_PLACES]) + (", ..." if one["count"] > _PLACES else "")
            lines.append(
                f'<tr><th scope="row"><bdi>{escape(source)}</bdi></th><td>{one["count"]:,}</td>'
                f"<td>{escape(reason)}</td><td><bdi>{escape(places)}</bdi></td></tr>"
            )
    if not lines:
        return ""
    head = "<tr><th>source</th><th>rows</th><th>why</th><th>where</th></tr>"
    return f'<div class="wide"><table>{head}{"".join(lines)}</table></div>'
