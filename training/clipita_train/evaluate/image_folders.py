"""Find photographs on disk and the class of each, in the layouts of ImageNet and other data sets.

| layout | e.g. |
|---|---|
| a folder for each class, by its id or its label | `val/n01440764/ILSVRC2012_val_00000293.JPEG`, `foto/gatto/1.jpg` |
| file names that begin or end with the id | `n01440764_tench.JPEG`, `ILSVRC2012_val_00000293_n01440764.JPEG` |
| one folder, and a list of what each file shows | `LOC_val_solution.csv`, `val_annotations.txt`, `val.txt` |
| one folder, and a list in the order of the file names | ids, or `ILSVRC2012_validation_ground_truth.txt` |

The class numbers in ImageNet's own ground truth are not in the order of the ids. The file `meta.mat`, beside it in the
development kit, says which number is which id. Numbers after a file's name (as in Caffe's `val.txt`) count the classes
of the label set from 0.
"""

import re
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from clipita.images.photo_files import find_photos, readable_suffixes
from clipita_train.evaluate.label_sets import LabelSet


@dataclass(frozen=True)
class LabeledImages:
    """Photographs with their classes.

    Attributes:
        paths: Paths of the photographs, sorted.
        classes: For each the place of its class in the label set.
        strangers: Folder or class that is not in the label set, to how many photographs it has.
        left_aside: What else the folder holds, as a sentence.
    """

    paths: tuple[Path, ...]
    classes: tuple[int, ...]
    strangers: dict[str, int]
    left_aside: str = ""


def find_labeled_images(folder: Path, labels: LabelSet, truth: Path | None = None) -> LabeledImages:
    """Find the photographs under `folder` that show a class of the label set.

    Args:
        folder: Holds the photographs, at any depth.
        labels: The classes.
        truth: A list of what the photographs show; None if folders or file names say so.

    Raises:
        FileNotFoundError: There is no photograph, or none of a class.
        ValueError: The list does not fit, or a file or folder cannot be looked at.
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
    """Return the class of a photograph, by the nearest folder that is named like a class, or else by the file name.

    If neither names a class, return its folder and None.
    """
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
    """Split a line into cells, at tabs if there are any, so that names may have spaces.

    The second cell of a Kaggle prediction, "n03995372 85 1 499", becomes the id.
    """
    cells = re.split(r"\t" if "\t" in line else r"[,\s]", line.strip())
    return [cell.strip() for cell in cells if cell.strip()]


def _imagenet_numbers(meta: Path) -> dict[int, str]:
    """Return the id of each class number, from the table `synsets` of ImageNet's development kit."""
    if not meta.is_file():
        raise ValueError(
            f"the class numbers of ImageNet's own list need {meta.name} beside it, which says what they mean"
        )
    from scipy.io import loadmat

    synsets = loadmat(meta, squeeze_me=True)["synsets"]
    return {int(number): str(name) for number, name in zip(synsets["ILSVRC2012_ID"], synsets["WNID"], strict=True)}
