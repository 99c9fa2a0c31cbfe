"""Label sets for zero-shot classification: ours for ImageNet, CLIP-Italian's from its own file, or any other file.

A label set is a file with tabs between columns, whose first line names the columns; lines that begin with # are
comments. It must have the columns `id` (the name of the class in folders, file names or lists) and `label` ("un gatto",
or "gatto"); other columns are ignored. CLIP-Italian's file (`evaluation/imagenet_labels_IT.tsv` on the branch
imagenet_templates of clip-italian/clip-italian) is read by its columns `set_id` and `query_short_translated`.

Our label set is `labels/imagenet_it.tsv`: 1,000 labels in the order of ImageNet, with gender, synonyms and broader
kinds, separated by "; ". `labels/imagenet_it_changes.tsv` says where and why it departs from CLIP-Italian's.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from importlib import resources
from pathlib import Path

from clipita.text.italian import with_article
from clipita_train.data.concepts import without_article

IMAGENET_IT = "imagenet-it"
_COLUMNS = (("id", "label"), ("set_id", "query_short_translated"))


@dataclass(frozen=True)
class LabelSet:
    """Classes with their ids and labels. Two classes may have the same label; then no model can tell them apart."""

    name: str
    ids: tuple[str, ...]
    labels: tuple[str, ...]

    def phrases(self, *, articles: bool) -> list[str]:
        """Return the labels, all with an article or all without."""
        return [with_article(label) if articles else without_article(label) for label in self.labels]

    @cached_property
    def by_name(self) -> dict[str, int]:
        """The place of each class, by its id and by its label, in lower case.

        Labels count with and without article; a label that several classes have is left out.
        """
        names = [{name.lower() for name in (label, without_article(label))} for label in self.labels]
        count = Counter(name for both in names for name in both)
        found = {name: i for i, both in enumerate(names) for name in both if count[name] == 1}
        return found | {i.lower(): place for place, i in enumerate(self.ids)}

    @property
    def twins(self) -> int:
        """The number of classes that share their label with another class."""
        count = Counter(self.labels)
        return sum(count[label] > 1 for label in self.labels)


def read_label_set(name: str) -> LabelSet:
    """Read the label set `imagenet-it`, or the file of this name.

    Raises:
        FileNotFoundError: There is no such file.
        ValueError: The file lacks a column, or has a line of another length, a blank cell, or a class twice.
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
        raise ValueError(
            f"{name} needs a first line that names the columns 'id' and 'label', and lines below it, with tabs"
        )
    ids, labels = (tuple(row[column] for row in rows) for column in chosen)
    for i, (class_id, label) in enumerate(zip(ids, labels, strict=True)):
        if not class_id or not label:
            raise ValueError(f"{name}: class {i + 1} has no {'id' if not class_id else 'label'}")
    class_id, count = Counter(ids).most_common(1)[0]
    if count > 1:
        raise ValueError(f"{name}: the class {class_id!r} is there {count} times")
    return LabelSet(name if name == IMAGENET_IT else Path(name).name, ids, labels)


def read_columns(text: str, name: str) -> Iterator[dict[str, str]]:
    """Yield the rows of a table whose first line names its columns.

    Raises:
        ValueError: A line has another number of columns; the message calls the table `name`.
    """
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
