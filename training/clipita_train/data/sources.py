"""Photographs and captions on disk -> examples: one reader per layout, one table of the collections of clipita-mini.

Nothing is downloaded here. Every collection is a public Git repository that the user clones to ROOT/<owner>/<name>;
`clipita-train sources` prints the commands. `labels/folders.tsv` says where in a repository the photographs of a
concept are, and `labels/not_photographs.tsv` which of the development files are drawings and figurines.
"""

import csv
import hashlib
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path

from clipita_train.data.concepts import class_concepts, read_table

# Of the collections below alone, which are fixed: their files are drawn by number, so that reading others too, or
# leaving some aside, would change what every recipe learns from. Others are read by clipita.images.photo_files.
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
POOL = 600  # a limit draws from the first 600 photographs by name


@dataclass(frozen=True)
class Example:
    """One photograph: what it shows (a concept id), or what people wrote of it (captions)."""

    path: str  # relative to the data root
    source: str
    split: str  # "train" or "dev"
    concept: str | None = None
    captions: tuple[str, ...] = ()
    judged_as: str | None = None  # the broader concept that a development set asks for, where that is another

    def to_json(self) -> dict[str, object]:
        """The example without its empty fields: a line of a manifest."""
        return {key: value for key, value in asdict(self).items() if value not in (None, ())}

    @classmethod
    def from_json(cls, fields: dict[str, object]) -> "Example":
        """The inverse of `to_json`."""
        return cls(**{**fields, "captions": tuple(fields.get("captions", ()))})  # type: ignore[arg-type]


@dataclass(frozen=True)
class Found:
    """What a reader yields: an example whose source and root are not known to it."""

    path: Path
    split: str
    concept: str | None = None
    captions: tuple[str, ...] = ()
    judged_as: str | None = None


@dataclass(frozen=True)
class Source:
    """A collection: where it is to be had, on what terms, and how its folder is read."""

    name: str
    repository: str  # owner/name on GitHub
    licence: str
    read: Callable[[Path], Iterable[Found]]
    commit: str | None = None  # where the newest one no longer has the photographs
    further: tuple[str, ...] = ()  # other repositories that its reader looks into

    def examples(self, root: Path) -> Iterator[Example]:
        """Its examples under the data root.

        Raises:
            FileNotFoundError: the clone or a folder in it is missing; says what to clone where.
        """
        folder = root / self.repository
        if not folder.is_dir():
            raise FileNotFoundError(
                f"source {self.name!r} is missing at {folder}. Get it with: {self.clone_command(root)}; "
                f"or leave it out: --without {self.name}"
            )
        for found in self.read(folder):
            path = found.path.relative_to(root).as_posix()
            yield Example(path, self.name, found.split, found.concept, found.captions, found.judged_as)

    def clone_command(self, root: Path) -> str:
        """The shell command that fetches it."""
        repositories = (self.repository, *self.further)
        commands = [f"git clone https://github.com/{name} {root / name}" for name in repositories]
        if self.commit is not None:
            commands.insert(1, f"git -C {root / self.repository} checkout {self.commit}")
        return " && ".join(commands)


def stable_order(path: Path) -> str:
    """A fixed pseudo-random key from the last two parts of a path: the same choice on every machine."""
    return hashlib.sha1("/".join(path.parts[-2:]).encode()).hexdigest()


def photographs(folder: Path) -> list[Path]:
    """All photographs of a folder, in `stable_order`.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"no folder {folder}: is the clone complete?")
    return sorted((path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES), key=stable_order)


def folders(collection: str, *, train: int, dev: int = 0) -> Callable[[Path], Iterator[Found]]:
    """A reader of `labels/folders.tsv`: at most so many photographs of a concept for training and development.

    Those that `labels/not_photographs.tsv` names are then left out.
    """

    def read(root: Path) -> Iterator[Found]:
        patterns: dict[str, list[str]] = defaultdict(list)
        for name, pattern, concept in read_table("folders.tsv", 3):
            if name == collection:
                patterns[concept].append(pattern)
        others = {root / path for name, path, _ in read_table("not_photographs.tsv", 3) if name == collection}
        for concept, globs in patterns.items():
            paths = {path for pattern in globs for path in root.glob(pattern) if path.suffix.lower() in SUFFIXES}
            if not paths:
                raise FileNotFoundError(f"no photographs at {root / globs[0]}: is the clone complete?")
            pool = sorted(sorted(paths)[:POOL], key=stable_order)
            split = {"dev": pool[:dev], "train": pool[dev : dev + train]}
            yield from (Found(path, name, concept) for name in split for path in split[name] if path not in others)

    return read


def in_folders(
    name: str, repository: str, licence: str, *, train: int, dev: int = 0, commit: str | None = None
) -> Source:
    """A collection whose photographs of a concept are where `labels/folders.tsv` says under its name."""
    return Source(name, repository, licence, folders(name, train=train, dev=dev), commit)


def tiny_imagenet(root: Path, train: int) -> Iterator[Found]:
    """Tiny ImageNet: `train` of the 500 training pictures a class; its validation set is the development set."""
    root = root / "tiny-imagenet-200"
    for wnid in (root / "wnids.txt").read_text().split():
        for path in photographs(root / "train" / wnid / "images")[:train]:
            yield Found(path, "train", wnid)
    for line in (root / "val" / "val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        yield Found(root / "val" / "images" / name, "dev", wnid)


def caltech101(root: Path) -> Iterator[Found]:
    """Caltech-101 without its background class and its second, cropped set of faces; a fixed third is held out."""
    for name, concept in class_concepts("caltech101").items():
        paths = photographs(root / "101_ObjectCategories" / name)
        for i, path in enumerate(paths):
            yield Found(path, "dev" if i < len(paths) // 3 else "train", concept)


def grocery(root: Path) -> Iterator[Found]:
    """Grocery Store: the official test split is the development set, judged on its 43 coarse classes."""
    root = root / "dataset"
    with (root / "classes.csv").open(newline="") as file:
        rows = [row for row in csv.reader(file) if row[1].isdigit()]
    fine = {int(row[1]): class_concepts("grocery")[row[0]] for row in rows}
    coarse = {int(row[3]): class_concepts("grocery_coarse")[row[2]] for row in rows}
    for split in ("train", "val", "test"):
        for line in (root / f"{split}.txt").read_text().splitlines():
            name, fine_id, coarse_id = (cell.strip() for cell in line.split(","))
            split_name = "dev" if split == "test" else "train"
            yield Found(root / name, split_name, fine[int(fine_id)], judged_as=coarse[int(coarse_id)])


def clothing(root: Path) -> Iterator[Found]:
    """Clothing: ten garments; its own test split is the development set."""
    for split in ("train", "validation", "test"):
        for name, concept in class_concepts("clothing").items():
            for path in photographs(root / split / name):
                yield Found(path, "dev" if split == "test" else "train", concept)


def imagenet_samples(root: Path) -> Iterator[Found]:
    """One photograph for each of the 1,000 ImageNet classes: `n01440764_tench.JPEG`."""
    return (Found(path, "train", path.name.split("_")[0]) for path in photographs(root))


def flickr8k(root: Path) -> Iterator[Found]:
    """Flickr8k: five English captions a photograph, which the multilingual text tower reads beside Italian.

    Its 1,000 test photographs are the development set. The captions are in the repository named `FLICKR8K_CAPTIONS`.
    """
    texts = root.parent.parent / FLICKR8K_CAPTIONS
    if not texts.is_dir():
        raise FileNotFoundError(
            f"Flickr8k's captions are missing: git clone https://github.com/{FLICKR8K_CAPTIONS} {texts}"
        )
    captions: dict[str, list[str]] = defaultdict(list)
    for line in (texts / "Flickr8k.token.txt").read_text("utf-8").splitlines():
        key, caption = line.split("\t", 1)
        captions[key.split("#")[0]].append(caption.strip().removesuffix(".").strip())
    test = set((texts / "Flickr_8k.testImages.txt").read_text().split())
    for path in photographs(root / "data" / "images"):
        if path.name in captions:
            yield Found(path, "dev" if path.name in test else "train", captions=tuple(captions[path.name]))


def animal_pose(root: Path, train: int) -> Iterator[Found]:
    """Animal Pose: photographs of PASCAL VOC and others with all their dogs, cats, horses, sheep and cows marked.

    `train` of those that show one kind alone, by its name, which is the concept's id.
    """
    marked = json.loads((root / "keypoints.json").read_text("utf-8"))
    names = {kind["id"]: kind["name"] for kind in marked["categories"]}
    kinds: dict[int, set[str]] = defaultdict(set)
    for animal in marked["annotations"]:
        kinds[animal["image_id"]].add(names[animal["category_id"]])
    for name in names.values():
        paths = [root / "images" / file for number, file in marked["images"].items() if kinds[int(number)] == {name}]
        for path in sorted(paths, key=stable_order)[:train]:
            yield Found(path, "train", name)


FLICKR8K_CAPTIONS = "prakhar-dhakar/Image-Captioning"

SOURCES = (
    Source("tiny_imagenet", "seshuad/IMagenet", "ImageNet terms: research", partial(tiny_imagenet, train=200)),
    Source("caltech101", "MachineLearning2020/Homework2-Caltech101", "CC BY 4.0", caltech101),
    Source("grocery", "marcusklasson/GroceryStoreDataset", "MIT", grocery),
    Source("clothing", "alexeygrigorev/clothing-dataset-small", "CC0", clothing),
    Source("imagenet_samples", "EliSchwartz/imagenet-sample-images", "ImageNet terms: research", imagenet_samples),
    Source(
        "flickr8k",
        "RlNZLER/Image-Text-Matching",
        "Flickr8k terms: research",
        flickr8k,
        commit="56a15d913c3f290e2ee896386ece6076c1eea02e",
        further=(FLICKR8K_CAPTIONS,),
    ),
    in_folders(
        "miniplaces",
        "rathull/CTFs",
        "Places terms: research",
        train=100,
        dev=20,
        commit="f35c219885f163ca00a045236dd44be489598837",
    ),
    in_folders(
        "rooms_places365",
        "SilviuBR24/room-classification",
        "Places365 terms: research",
        train=300,
    ),
    Source(
        "animal_pose",
        "mateusrafael4/Atividade_programacao_pose_estimation",
        "none stated; PASCAL VOC: research",
        partial(animal_pose, train=700),
    ),
    in_folders("pacs_photo", "MachineLearning2020/Homework3-PACS", "none stated", train=250),
    in_folders(
        "cats_pandas_vehicles",
        "yahyasarhan22/comparative-study-of-image-classification",
        "none stated",
        train=250,
    ),
    in_folders("houses", "emanhamed/Houses-dataset", "none stated", train=250),
    in_folders("man_woman", "stepanovnv95/NeuralMirror", "none stated", train=250),
    in_folders("bird_cat_dog", "linlawre/CMPE258_hw1", "none stated", train=250),
    in_folders("dogs_vs_cats", "ardamavi/Dog-Cat-Classifier", "none stated", train=250),
    in_folders(
        "chair_computer_cup_transport",
        "krish212/vgg",
        "none stated",
        train=250,
    ),
    in_folders("furniture3", "Kshitiz07/furniture_classification", "none stated", train=250),
    in_folders("flower_photos", "atiaisaac/flowers_classification", "CC BY", train=150),
    in_folders("imagenette", "thunderInfy/imagenette", "ImageNet terms: research", train=60),
    in_folders("instruments", "aizadaaskar/dl-homework", "none stated", train=80),
    in_folders("food101_64px", "Gandolier/genai_food101_repo", "Food-101 terms: research", train=60),
    in_folders(
        "freiburg_groceries",
        "aleksandar-aleksandrov/groceries-object-detection-dataset",
        "none stated; Freiburg Groceries: research",
        train=150,
    ),
    in_folders("fruits262_10", "mohabmahdy/dataset_fruit", "none stated", train=200),
    in_folders("fruits40", "strgalt-t/Fruits-40-EU", "none stated", train=150),
    in_folders("fruits70", "aiglegivree/FoodClassifier", "none stated", train=50),
    in_folders("plums_apples", "XCr0s5X/Healthy-Diseased-Fruits-Vegetables", "none stated", train=100),
    in_folders("crops", "naveengct/crop_dataset", "none stated", train=100),
    in_folders(
        "livestock_100px",
        "iantagorda/image-classifier-for-farm-animals",
        "none stated",
        train=200,
    ),
    in_folders("popular_animals", "InputBlackBoxOutput/popular-animals-dataset", "MIT", train=120),
    in_folders("sun_a", "nhantd/CMU16720-Scene-Classification", "SUN terms: research", train=150),
    in_folders(
        "sun_b",
        "colegulino/Spatial-Pyramid-Matching-for-Scene-Classification",
        "SUN terms: research",
        train=150,
    ),
    in_folders(
        "sun_c",
        "Yorkbenno/Spatial-Pyramid-Matching-for-Scene-Classification",
        "SUN terms: research",
        train=150,
    ),
    in_folders(
        "sun_d",
        "akshay993/Spatial-Pyramid-Matching-for-Scene-Classification",
        "SUN terms: research",
        train=150,
    ),
    in_folders(
        "sun_e",
        "michael5511b/CV-Spatial-Pyramid-Matching-For-Scene-Classification",
        "SUN terms: research",
        train=150,
    ),
    in_folders(
        "intel_scenes",
        "yadavaditya13/Image_Classification_Using_Deep_Learning",
        "none stated",
        train=300,
    ),
    in_folders("meals", "khamar21/Meal-Detector-Backend", "none stated", train=150),
    in_folders("meals20", "Bhavyasree2013/AI-Calorie-Estimator", "none stated", train=80),
    in_folders("pizza_icecream", "ATG-5222/ImageClassification", "MIT", train=100),
    in_folders("vehicle_cnn", "pavlelukic/vehicle-cnn", "none stated", train=150),
    in_folders("buses", "PedroRodriguezHernandez/ImageViewer", "none stated", train=150),
    in_folders("beaches_mexico", "alexcavadora/places", "none stated", train=270),
    in_folders("weizmann_horses", "shenshutao/image_segmentation", "none stated; Weizmann: research", train=330),
    in_folders("monkey_species", "nikhildutta333/Monkey-Species-Classification", "none stated", train=220),
    in_folders("squirrels", "Nameless0612/squeek", "none stated", train=280),
    in_folders("oranges", "and-kul/fruits_dataset", "none stated; ImageNet terms: research", train=150),
    in_folders("pexels_small", "arslnysuf/image-data", "MIT", train=10),
    # Never trained on: photographs from elsewhere, with everyday labels.
    in_folders("animals8", "herene/animals_pictures_classification", "none stated", train=0, dev=100),
    in_folders(
        "vehicles_unsplash",
        "set-kaung/Image-Classification-Project",
        "none stated",
        train=0,
        dev=100,
    ),
    in_folders("painting_finder", "lqhl/Painting-Finder", "MIT", train=0, dev=60),
    in_folders("fruits3", "Reenatrilok/Reena_T_MLT_CM23044", "none stated", train=0, dev=100),
    in_folders("food4", "fatemeoz/FoodClassifier", "none stated", train=0, dev=100),
    in_folders("corel1000", "lamraouii/CBIR-Prjct", "none stated; Corel: research", train=0, dev=100),
    in_folders(
        "animals10_sample",
        "SamvelKarapetyaan/animal_classification",
        "none stated",
        train=0,
        dev=100,
    ),
    in_folders("fruits_phone", "MicrosoftLearning/AI-102-AIEngineer", "MIT", train=0, dev=100),
    in_folders("domes_interiors", "Piyush-1332/Domes-Interiors", "none stated", train=0, dev=100),
)
