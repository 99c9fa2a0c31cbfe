"""Write a zero-shot report as Markdown."""

from clipita_train.evaluate.zero_shot import METRICS, ZeroShotReport, ZeroShotScores
from clipita_train.intervals import DRAWS, SEED, SWAPS

SHOWN = 20  # how many classes and pairs are shown; the JSON has all


def markdown(report: ZeroShotReport, images: str) -> str:
    """Return the protocol, the accuracies, and the first row's hardest classes and most confused pairs."""
    first, *others = report.rows
    sets = {row.labels: row.twins for row in report.rows}
    lines = [
        f"# Zero-shot: {images}",
        "",
        f"- {report.photographs:,} photographs of {report.classes_shown:,} classes, each asked against all "
        f"{report.labels:,} labels; left out: {len(report.unreadable):,} unreadable, "
        f"{sum(report.strangers.values()):,} of no class{_some(list(report.strangers))}.",
        *(
            f"- Labels {name}: {twins or 'none'} of them the same as another's, whose photographs cannot be right at 1."
            for name, twins in sets.items()
        ),
        *(
            f"- Phrasing {name}: {', '.join(f'“{template}”' for template in templates)}."
            for name, templates in {row.phrasing: row.templates for row in report.rows}.items()
        ),
        "- A label that ties with the right one stands before it.",
        "- Calibration error: of the probability of the label that is said, in 15 bins: the softmax over all labels of "
        "the model's logit scale times the cosines, or, where training was with sigmoids, each label's own.",
        f"- Intervals, of differences too: 95 %, bootstrap, {DRAWS:,} draws of photographs, seed {SEED}.",
        *(
            f"- {name}: fingerprint {fingerprint}, {precision}, licence {license}."
            for name, fingerprint, precision, license in dict.fromkeys(
                (row.model, row.fingerprint, row.precision, row.license) for row in report.rows
            )
        ),
        "",
        f"| model | labels | phrasing | {' | '.join(METRICS)} | Acc@1, mean of classes | calibration error |",
        "|---" * (5 + len(METRICS)) + "|",
    ]
    for row in report.rows:
        cells = [f"{a.value:.2%} [{a.low:.1%}, {a.high:.1%}]" for a in row.accuracy.values()]
        lines.append(
            f"| {_name(row)} | {' | '.join(cells)} | {row.mean_of_classes:.2%} | {row.calibration_error:.3f} |"
        )
    if others:
        lines += [
            "",
            f"## Compared with {_name(first).replace(' | ', ', ')}",
            "",
            f"p: two-sided permutation, {SWAPS:,} swaps of photographs, seed {SEED}, not adjusted for their number.",
            "",
            f"| model | labels | phrasing | {' | '.join(METRICS)} |",
            "|---" * (3 + len(METRICS)) + "|",
        ]
    for row in others:
        assert row.differences is not None
        cells = [f"{d.value:+.2%} [{d.low:+.1%}, {d.high:+.1%}], p {d.p:.4f}" for d in row.differences.values()]
        lines.append(f"| {_name(row)} | {' | '.join(cells)} |")
    return "\n".join([*lines, *_hardest(first)]) + "\n"


def _hardest(row: ZeroShotScores) -> list[str]:
    title = _name(row).replace(" | ", ", ")
    hardest = sorted(row.classes, key=lambda one: (one.top1, one.top5))[:SHOWN]
    return [
        "",
        f"## Hardest classes: {title}",
        "",
        "| id | label | photographs | Acc@1 | Acc@5 | most often taken for |",
        "|---|---|---|---|---|---|",
        *(
            f"| {c.id} | {c.label} | {c.photographs} | {c.top1:.1%} | {c.top5:.1%} | {c.taken_for or ''} |"
            for c in hardest
        ),
        "",
        f"## Most confused: {title}",
        "",
        "| shown | said | photographs |",
        "|---|---|---|",
        *(f"| {c.shown} | {c.said} | {c.photographs} of {c.of} |" for c in row.confused[:SHOWN]),
    ]


def _name(row: ZeroShotScores) -> str:
    return f"{row.model} | {row.labels} | {row.phrasing}"


def _some(names: list[str]) -> str:
    return f" ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''})" if names else ""
