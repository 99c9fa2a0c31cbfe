"""Label sets for zero-shot classification: ours for ImageNet, the original's from its own file, or anyone's.

A label set is a file of lines with tabs between columns, the first line naming them; lines that begin with # are
comments. Needed are `id` (what folders, file names or a list call the class) and `label` ("un gatto", or "gatto");
other columns are left alone. The file of CLIP-Italian (`evaluation/imagenet_labels_IT.tsv` on the branch
imagenet_templates of clip-italian/clip-italian) is read as it is: its columns `set_id` and `query_short_translated`.

`labels/imagenet_it.tsv` is ours: 1,000 labels in the order of ImageNet, with gender, synonyms, broader kinds ("; "
between them). `labels/imagenet_it_changes.tsv` says where and why it departs from the original's.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from clipita.italian import with_article
from clipita_train.data.concepts import without_article

IMAGENET_IT = "imagenet-it"
_COLUMNS = (("id", "label"), ("set_id", "query_short_translated"))


@dataclass(frozen=True)
class LabelSet:
    """Classes by id, and the label of each; two classes may have one label, and then cannot be told apart."""

    name: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]

    def phrases(self, *, articles: bool) -> list[str]:
        """The labels, each with an article or each without."""
        return [with_article(label) if articles else without_article(label) for label in self.labels]

    @cached_property
    def by_name(self) -> dict[str, int]:
        """Where each class stands, by its id and by any label of one class only, in any case, without article too."""
        names = [{name.lower() for name in (label, without_article(label))} for label in self.labels]
        count = Counter(name for both in names for name in both)
        found = {name: i for i, both in enumerate(names) for name in both if count[name] == 1}
        return found | {i.lower(): place for place, i in enumerate(self.ids)}

    @property
    def twins(self) -> int:
        """How many classes share their label with another."""
        count = Counter(self.labels)
        return sum(count[label] > 1 for label in self.labels)


def read_label_set(name: str) -> LabelSet:
    """`imagenet-it`, or the file of that name.

    Raises:
        FileNotFoundError: neither.
        ValueError: a file without the columns, with a line of another length, a blank cell, or a class twice.
    """
    if name == IMAGENET_IT:
        ours = resources.files("clipita_train.evaluate").joinpath("labels", "imagenet_it.tsv")
        rows = list(read_columns(ours.read_text("utf-8"), name))
    elif Path(name).is_file():
        rows = list(read_columns(Path(name).read_text("utf-8-sig"), name))
    else:
        raise FileNotFoundError(f"no label set {name!r}: expected {IMAGENET_IT!r} or a file")
    chosen = next((pair for pair in _COLUMNS if rows and {*pair} <= {*rows[0]}), None)
    if chosen is None:
        raise ValueError(f"{name} needs lines under a first one that names the columns 'id' and 'label', tabs between")
    ids, labels = (tuple(row[column] for row in rows) for column in chosen)
    for i, (class_id, label) in enumerate(zip(ids, labels, strict=True)):
        if not class_id or not label:
            raise ValueError(f"{name}: class {i + 1} has no {'id' if not class_id else 'label'}")
    class_id, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{name}: the class {class_id!r} is there {count} times")
    return LabelSet(name if name == IMAGENET_IT else Path(name).name, ids, labels)


def read_columns(text: str, name: str) -> Iterator[dict[str, str]]:
    """The rows of a table whose first line names its columns. Raises ValueError: a line of another length."""
    header: list[str] | None = None
    for number, line in enumerate(text.split("\n"), 1):
        cells = [cell.strip() for cell in line.split("\t")]
        if line.startswith("#") or not any(cells):
            continue
        if header is None:
            header = cells
        elif len(cells) != len(header):
            raise ValueError(f"{name}, line {number}: expected {len(header)} columns, got {len(cells)}")
        else:
            yield dict(zip(header, cells, strict=True))
