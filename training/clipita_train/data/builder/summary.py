"""Count the rows and captions that went into a build and came out, by source, and why the others did not."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from clipita_train.data.builder.compare import TRAIN, VALIDATION
from clipita_train.data.builder.store import Chunk
from clipita_train.data.pairs.rows import Tally


def summarize(tallies: Mapping[str, Sequence[Tally]], chunks: Sequence[Chunk]) -> dict[str, Any]:
    """Return, for each source, its counts as `build.json` has them; evaluation sets have only counts of rows read.

    Args:
        tallies: Name of a source or evaluation set to the tallies of its files.
        chunks: The chunks of all sources.
    """
    found: dict[str, Any] = {}
    for name, parts in tallies.items():
        bad, places = Counter[str](), dict[str, list[str]]()
        for tally in parts:
            bad += tally.bad
            for reason, where in tally.places.items():
                places[reason] = (places.get(reason, []) + where)[: tally.kept]
        found[name] = {
            "rows": sum(tally.rows for tally in parts),
            "bad": {reason: {"count": count, "places": places[reason]} for reason, count in bad.most_common()},
        }
    for source in dict.fromkeys(chunk.source.name for chunk in chunks):
        found[source] |= _kept([chunk for chunk in chunks if chunk.source.name == source])
    return found


def _kept(chunks: Sequence[Chunk]) -> dict[str, Any]:
    rows, captions, splits, kept = Counter[str](), Counter[str](), Counter[str](), 0
    for chunk in chunks:
        table = chunk.read("reason", "caption_reasons", "split")
        rows.update(table["reason"].to_pylist())
        splits.update(table["split"].to_pylist())
        for reason, reasons in zip(table["reason"].to_pylist(), table["caption_reasons"].to_pylist(), strict=True):
            captions.update(reasons)
            kept += reasons.count("") if not reason else 0
    return {
        "dropped": {reason: count for reason, count in rows.most_common() if reason},
        TRAIN: splits[TRAIN],
        VALIDATION: splits[VALIDATION],
        "captions": captions.total(),
        "captions_dropped": {reason: count for reason, count in captions.most_common() if reason},
        "captions_kept": kept,  # captions of kept rows
    }


def as_text(sources: dict[str, Any]) -> str:
    """Format the counts for a person to read."""
    lines = list[str]()
    for name, found in sources.items():
        lines.append(f"{name}: {found['rows']:,} rows read, {sum(one['count'] for one in found['bad'].values()):,} bad")
        for reason, one in found["bad"].items():
            more = ", ..." if one["count"] > len(one["places"][:3]) else ""
            lines.append(f"  {one['count']:9,} bad: {reason} ({', '.join(one['places'][:3])}{more})")
        if TRAIN not in found:
            continue
        lines += [f"  {count:9,} dropped: {reason}" for reason, count in found["dropped"].items()]
        lines += [f"  {count:9,} captions dropped: {reason}" for reason, count in found["captions_dropped"].items()]
        lines.append(
            f"  {found[TRAIN]:9,} train, {found[VALIDATION]:,} validation; {found['captions_kept']:,} captions"
        )
    return "\n".join(lines)
