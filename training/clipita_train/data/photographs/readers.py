"""Read collections of photographs: a function for each layout of folders and lists.

`labels/folders.tsv` says where in a repository the photographs of a concept are. `labels/not_photographs.tsv` names
development files that are drawings or figurines.
"""

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from clipita_train.data.concepts import class_concepts, load_ontology, read_table

# For the collections of this package alone. Their files are drawn by number, so reading more or fewer files would
# change what every recipe learns from. All other folders are read by clipita.images.photo_files.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
POOL = 600  # photographs are drawn from the first 600 by name
FLICKR8K_CAPTIONS = "prakhar-dhakar/Image-Captioning"


@dataclass(frozen=True)
class CollectionItem:
    """A photograph as a reader yields it; its path is not yet relative to the root of all collections."""

    path: Path
    split: str
    concept: str | None = None
    captions: tuple[str, ...] = ()
    judged_as: str | None = None


def stable_order(path: Path) -> str:
    """Return a pseudo-random sort key from the last two parts of a path, the same on every machine."""
    return hashlib.sha1("/".join(path.parts[-2:]).encode()).hexdigest()


def photographs(folder: Path) -> list[Path]:
    """Return all photographs of a folder, in `stable_order`.

    Raises:
        FileNotFoundError: There is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: is the clone complete?")
    return sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES), key=stable_order)


def matching(root: Path, patterns: Sequence[str]) -> list[Path]:
    """Return the photographs that any of the patterns fits, sorted by path.

    Raises:
        FileNotFoundError: There is none.
    """
    paths = {path for pattern in patterns for path in root.glob(pattern) if path.suffix.lower() in SUFFIXES}
    if not paths:
        raise FileNotFoundError(f"no photographs at {root / patterns[0]}: is the clone complete?")
    return sorted(paths)


def folders(collection: str, *, train: int, dev: int = 0) -> Callable[[Path], Iterator[CollectionItem]]:
    """Make a reader of the photographs that `labels/folders.tsv` lists for a collection.

    The table names the concept that they show, or gives phrases that describe them, in quotes, or both: street "una
    strada di notte; a street at night". Photographs that `labels/not_photographs.tsv` names are left out after the
    choice.

    Args:
        collection: Its name in the tables.
        train: Maximum number of training photographs of the same concept and phrases.
        dev: Maximum number of development photographs of a concept.
    """

    def read(root: Path) -> Iterator[CollectionItem]:
        patterns: dict[str, list[str]] = defaultdict(list)
        for name, pattern, shown in read_table("folders.tsv", 3):
            if name == collection:
                patterns[shown].append(pattern)
        others = {root / path for name, path, _ in read_table("not_photographs.tsv", 3) if name == collection}
        for shown, globs in patterns.items():
            pool = sorted(matching(root, globs)[:POOL], key=stable_order)
            split = {"dev": pool[:dev], "train": pool[dev : dev + train]}
            concept, captions = concept_and_phrases(shown)
            yield from (
                CollectionItem(path, name, concept, captions)
                for name in split
                for path in split[name]
                if path not in others
            )

    return read


def concept_and_phrases(shown: str) -> tuple[str | None, tuple[str, ...]]:
    """Return the concept that a cell of `labels/folders.tsv` names, or None, and the phrases that it gives."""
    concept, _, phrases = shown.partition('"')
    return concept.strip() or None, tuple(phrase.strip() for phrase in phrases.rstrip('"').split(";") if phrase.strip())


def classes_table(
    dataset: str, images: str, table: str, *, name: str, label: str, take: int
) -> Callable[[Path], Iterator[CollectionItem]]:
    """Make a reader of a table with the file name and the class of a photograph on each line.

    Args:
        dataset: Its name in `labels/classes.tsv`, which says what concept a class is; other classes are left out.
        images: The folder of the photographs in the repository.
        table: The table in the repository.
        name: The heading of the file names.
        label: The heading of the classes.
        take: Maximum number of photographs of a class.
    """

    def read(root: Path) -> Iterator[CollectionItem]:
        found: dict[str, list[Path]] = defaultdict(list)
        with (root / table).open(newline="", encoding="utf-8") as file:
            for row in csv.DictReader(file):
                found[row[label].strip()].append(root / images / Path(row[name]).name)
        for known, concept in class_concepts(dataset).items():
            paths = [path for path in found[known] if path.is_file()]
            if not paths:
                raise FileNotFoundError(f"no photographs of {known!r} in {root / images}: is the clone complete?")
            yield from (CollectionItem(path, "train", concept) for path in sorted(paths, key=stable_order)[:take])

    return read


def kept_out(*patterns: str) -> Callable[[Path], Iterator[CollectionItem]]:
    """Make a reader of photographs that other evaluations use, so that training leaves them out, and near copies too.

    Args:
        patterns: Where they are in the repository.
    """

    def read(root: Path) -> Iterator[CollectionItem]:
        yield from (CollectionItem(path, "dev") for path in matching(root, patterns))

    return read


def tiny_imagenet(root: Path, train: int) -> Iterator[CollectionItem]:
    """Read Tiny ImageNet: `train` of the 500 training pictures of each class; its validation set for development."""
    root = root / "tiny-imagenet-200"
    for wnid in (root / "wnids.txt").read_text().split():
        for path in photographs(root / "train" / wnid / "images")[:train]:
            yield CollectionItem(path, "train", wnid)
    for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        yield CollectionItem(root / "val" / "images" / name, "dev", wnid)


def caltech101(root: Path) -> Iterator[CollectionItem]:
    """Read Caltech-101 without its background class and cropped faces; a fixed third is for development."""
    for name, concept in class_concepts("caltech101").items():
        paths = photographs(root / "101_ObjectCategories" / name)
        for i, path in enumerate(paths):
            yield CollectionItem(path, "dev" if i < len(paths) // 3 else "train", concept)


def grocery(root: Path) -> Iterator[CollectionItem]:
    """Read Grocery Store: the official test split is for development, judged by its 43 coarse classes."""
    root = root / "dataset"
    with (root / "classes.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[1].isdigit()]
    fine = {int(row[1]): class_concepts("grocery")[row[0]] for row in rows}
    coarse = {int(row[3]): class_concepts("grocery_coarse")[row[2]] for row in rows}
    for split in ("train", "val", "test"):
        for line in (root / f"{split}.txt").read_text().splitlines():
            name, fine_id, coarse_id = (cell.strip() for cell in line.split(","))
            split_name = "dev" if split == "test" else "train"
            yield CollectionItem(root / name, split_name, fine[int(fine_id)], judged_as=coarse[int(coarse_id)])


def clothing(root: Path) -> Iterator[CollectionItem]:
    """Read Clothing, ten kinds of garments; its test split is for development."""
    for split in ("train", "validation", "test"):
        for name, concept in class_concepts("clothing").items():
            for path in photographs(root / split / name):
                yield CollectionItem(path, "dev" if split == "test" else "train", concept)


def imagenet_samples(root: Path) -> Iterator[CollectionItem]:
    """Read one photograph for each of the 1,000 ImageNet classes, such as `n01440764_tench.JPEG`."""
    return (CollectionItem(path, "train", path.name.split("_")[0]) for path in photographs(root))


def imagenet_named(root: Path) -> Iterator[CollectionItem]:
    """Read photographs of ImageNet that are named by their class, such as `n02131653_14212_bear.jpg`."""
    known = load_ontology().index
    for path in photographs(root / "imagen"):
        concept = path.name.split("_")[0]
        if concept in known:
            yield CollectionItem(path, "train", concept)


def flickr8k(root: Path) -> Iterator[CollectionItem]:
    """Read Flickr8k: five English captions for each photograph, which the multilingual text tower reads too.

    Its 1,000 test photographs are for development. The captions are in the repository named `FLICKR8K_CAPTIONS`.
    """
    texts = root.parent.parent / FLICKR8K_CAPTIONS
    captions: dict[str, list[str]] = defaultdict(list)
    for line in (texts / "Flickr8k.token.txt").read_text("utf-8").splitlines():
        key, caption = line.split("\t", 1)
        captions[key.split("#")[0]].append(caption.strip().removesuffix(".").strip())
    test = set((texts / "Flickr_8k.testImages.txt").read_text().split())
    for path in photographs(root / "data" / "images"):
        if path.name in captions:
            yield CollectionItem(path, "dev" if path.name in test else "train", captions=tuple(captions[path.name]))


def animal_pose(root: Path, train: int) -> Iterator[CollectionItem]:
    """Read Animal Pose: photographs of PASCAL VOC and others in which all farm animals and pets are marked.

    Takes `train` photographs of each kind (dog, cat, horse, sheep, cow) that show no other kind. The name of the kind
    is the id of the concept.
    """
    marked = json.loads((root / "keypoints.json").read_text("utf-8"))
    names = {kind["id"]: kind["name"] for kind in marked["categories"]}
    kinds: dict[int, set[str]] = defaultdict(set)
    for animal in marked["annotations"]:
        kinds[animal["image_id"]].add(names[animal["category_id"]])
    for name in names.values():
        paths = [root / "images" / file for number, file in marked["images"].items() if kinds[int(number)] == {name}]
        for path in sorted(paths, key=stable_order)[:train]:
            yield CollectionItem(path, "train", name)
