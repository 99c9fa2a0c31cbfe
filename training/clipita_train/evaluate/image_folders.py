"""Photographs on disk with the class of each, in the layouts in which ImageNet and others are kept.

| layout | e.g. |
|---|---|
| a folder for each class, by its id or its label | `val/n01440764/ILSVRC2012_val_00000293.JPEG`, `foto/gatto/1.jpg` |
| file names that begin or end with the id | `n01440764_tench.JPEG`, `ILSVRC2012_val_00000293_n01440764.JPEG` |
| one folder, and a list of what each file shows | `LOC_val_solution.csv`, `val_annotations.txt`, `val.txt` |
| one folder, and a list in the order of the files' names | ids, or `ILSVRC2012_validation_ground_truth.txt` |

The numbers of ImageNet's own ground truth are not in the order of its ids; `meta.mat`, which the development kit keeps
beside it, says which is which. Numbers after a file's name (Caffe's `val.txt`) count the label set from 0.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clipita.images.photo_files import find_photos, readable_suffixes
from clipita_train.evaluate.label_sets import LabelSet


@dataclass(frozen=True)
class LabeledImages:
    """Photographs in the order of their paths, the place of each one's class, and what was left out."""

    paths: tuple[Path, ...]
    classes: tuple[int, ...]
    strangers: dict[str, int]  # folder or class that is none of the label set's -> photographs
    left_aside: str = ""  # what else the folder holds, in a sentence


def find_labeled_images(folder: Path, labels: LabelSet, truth: Path | None = None) -> LabeledImages:
    """The photographs under `folder` that show a class of the label set.

    Args:
        folder: Holds them, at any depth.
        labels: Says which classes there are.
        truth: A list of what they show; None means that folders or file names tell.

    Raises:
        FileNotFoundError: no photograph, or none of a class.
        ValueError: a list that does not fit, or a file or folder that cannot be looked at.
    """
    found = find_photos(folder)
    if found.failed:
        place, reason = next(iter(found.failed.items()))
        raise ValueError(f"{folder / place} {reason}")
    paths = sorted(folder / key for key in found.keys)
    if not paths:
        looked_for = ", ".join(sorted(readable_suffixes()))
        raise FileNotFoundError(f"no photograph under {folder}; looked for {looked_for}. {found.describe()}".rstrip())
    classes = _listed(truth, paths, labels) if truth else [_named(path.relative_to(folder), labels) for path in paths]
    strangers = Counter(name for name, place in classes if place is None)
    kept = [(path, place) for path, (_, place) in zip(paths, classes, strict=True) if place is not None]
    if not kept:
        raise FileNotFoundError(
            f"no photograph under {folder} shows a class of {labels.name}, such as {labels.ids[0]!r}; found were "
            f"{', '.join(map(repr, [*strangers][:3]))}. Give a list of what they show as --truth"
        )
    shown = tuple(place for _, place in kept)
    return LabeledImages(tuple(path for path, _ in kept), shown, dict(strangers), found.describe())


def _named(path: Path, labels: LabelSet) -> tuple[str, int | None]:
    """The class by the nearest folder that is called as one is, else by the file's name; the folder if by neither."""
    for folder in path.parent.parts[::-1]:
        if (place := labels.by_name.get(folder.lower())) is not None:
            return folder, place
    parts = path.stem.lower().split("_")
    place = labels.by_name.get(parts[0], labels.by_name.get(parts[-1]))
    return path.parent.as_posix(), place


def _listed(truth: Path, paths: list[Path], labels: LabelSet) -> list[tuple[str, int | None]]:
    lines = [_cells(line) for line in truth.read_text("utf-8-sig").splitlines() if line.strip()]
    if lines and lines[0][:2] == ["ImageId", "PredictionString"]:
        lines.pop(0)
    if not lines or len({len(cells) == 1 for cells in lines}) > 1:
        raise ValueError(f"{truth} needs on each line a class, or a file's name and its class")
    if len(lines[0]) == 1:
        if len(lines) != len(paths):
            raise ValueError(f"{truth} has {len(lines)} lines, and there are {len(paths)} photographs")
        classes = [cells[0] for cells in lines]
        if all(name.isdigit() for name in classes):
            numbers = _imagenet_numbers(truth.with_name("meta.mat"))
            classes = [numbers.get(int(name), name) for name in classes]
        return [(name, labels.by_name.get(name.lower())) for name in classes]
    shown = {cells[0].rsplit("/", 1)[-1]: cells[1] for cells in lines}
    if all(name.isdigit() for name in shown.values()):
        if (most := max(map(int, shown.values()))) >= len(labels.ids):
            raise ValueError(f"{truth} has the class {most}, and {labels.name} has {len(labels.ids)}, from 0")
        shown = {name: labels.ids[int(number)] for name, number in shown.items()}
    found = [shown.get(path.name, shown.get(path.stem, f"not in {truth.name}")) for path in paths]
    return [(name, labels.by_name.get(name.lower())) for name in found]


def _cells(line: str) -> list[str]:
    """By tabs if there are any, so that names may have spaces; of a Kaggle prediction, "n03995372 85 1 499", the id."""
    cells = re.split(r"\t" if "\t" in line else r"[,\s]", line.strip())
    return [cell.strip() for cell in cells if cell.strip()]


def _imagenet_numbers(meta: Path) -> dict[int, str]:
    """ILSVRC2012_ID -> synset, of the development kit's `synsets`."""
    if not meta.is_file():
        raise ValueError(f"ImageNet's own numbers need {meta.name} beside the list: what they mean is in there")
    from scipy.io import loadmat

    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    return {int(number): str(name) for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
