"""Write and read the manifest: the deduplicated examples of all collections, as JSON lines."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from clipita.system.arrays import Array
from clipita_train.data.photographs.collection import Collection
from clipita_train.data.photographs.deduplicate import DeduplicationReport, deduplicate
from clipita_train.data.photographs.example import Example
from clipita_train.engine.files import written_whole


def write_manifest(
    sources: Sequence[Collection], root: Path, path: Path, kept_out: Array | None = None
) -> DeduplicationReport:
    """Read all collections under `root`, deduplicate them, and write the manifest.

    The photographs that are left out are listed in `<stem of path>.left-out.txt` beside it.

    Args:
        sources: The collections.
        root: The folder of all clones.
        path: Where the manifest goes.
        kept_out: (M,) uint64, perceptual hashes of photographs that training must not see, or None.

    Raises:
        FileNotFoundError: A collection is missing; the message says how to get it, or how to leave it out.
    """
    examples = [example for source in sources for example in source.examples(root)]
    kept, report = deduplicate(examples, root, kept_out)
    left_out = [f"unreadable\t{line}" for line in report.unreadable]
    left_out += [f"same file\t{line}" for line in report.same_file]
    left_out += [f"near a development photograph\t{line}" for line in report.near_development]
    left_out += [f"near a photograph kept out for evaluation\t{line}" for line in report.near_kept_out]
    with written_whole(path) as partial:
        with partial.open("w", encoding="utf-8") as file:
            for example in kept:
                file.write(json.dumps(example.to_json(), ensure_ascii=False) + "\n")
        path.with_suffix(".left-out.txt").write_text("\n".join(left_out) + "\n", encoding="utf-8")
    return report


def read_manifest(path: Path) -> list[Example]:
    """Read the examples of a manifest.

    Raises:
        FileNotFoundError: It has not been written yet.
    """
    if not path.is_file():
        raise FileNotFoundError(f"no manifest at {path}: write it first, with clipita-train prepare")
    return [Example.from_json(json.loads(line)) for line in path.read_text("utf-8").splitlines()]


def counts(examples: Sequence[Example]) -> dict[tuple[str, str], int]:
    """Count the examples of each (source, split)."""
    return dict(Counter((example.source, example.split) for example in examples))
