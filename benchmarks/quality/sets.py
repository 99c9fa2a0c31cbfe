"""The sets and models that the tables list, and where each set is looked for below `--root`."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from clipita_train.data.captions.files import Captioned, read_captions
from clipita_train.evaluate.image_folders import LabeledImages, find_labeled_images
from clipita_train.evaluate.label_sets import LabelSet

HERE = Path(__file__).parent


@dataclass(frozen=True)
class CaptionSet:
    """Photographs with captions.

    Attributes:
        name: What the table calls the set.
        captions: The file of captions, relative to the root, or absolute where it comes with this package.
        images: The folder of the photographs, relative to the root.
        note: What a reader has to know of the set.
    """

    name: str
    captions: Path
    images: str
    note: str = ""

    def read(self, root: Path) -> tuple[Sequence[Captioned], Path]:
        """Return the captions, and the folder of the photographs.

        Raises:
            FileNotFoundError: The file or the folder is missing.
        """
        path, folder = root / self.captions, root / self.images
        packed = path.with_name(f"{path.name}.gz")
        found = next((file for file in (path, packed) if file.is_file()), None)
        if found is None or not folder.is_dir():
            raise FileNotFoundError(f"no {self.images if found else self.captions}")
        return read_captions(found), folder


@dataclass(frozen=True)
class ClassSet:
    """Photographs of ImageNet's classes.

    Attributes:
        name: What the table calls the set.
        images: The folder of the photographs, relative to the root.
        truth: The list of what each file shows; None where folders or file names say so.
        note: What a reader has to know of the set.
    """

    name: str
    images: str
    truth: str | None = None
    note: str = ""

    def read(self, root: Path, labels: LabelSet) -> LabeledImages:
        """Return the photographs with their classes.

        Raises:
            FileNotFoundError: The folder is missing.
        """
        if not (root / self.images).is_dir():
            raise FileNotFoundError(f"no {self.images}")
        return find_labeled_images(root / self.images, labels, None if self.truth is None else root / self.truth)


_MSCOCO_IT = Path("crux82/mscoco-it/mscoco-it")
_TINY = "seshuad/IMagenet/tiny-imagenet-200/val"

RETRIEVAL = (
    CaptionSet("MSCOCO-IT dev, unvalidated", _MSCOCO_IT / "captions_ita_devset_unvalidated.json", "coco/val2014",
               "translated by machine"),
    CaptionSet("MSCOCO-IT dev, validated", _MSCOCO_IT / "captions_ita_devset_validated.json", "coco/val2014"),
    CaptionSet("MSCOCO-IT test, unvalidated", _MSCOCO_IT / "captions_ita_testset_unvalidated.json", "coco/val2014",
               "translated by machine"),
    CaptionSet("MSCOCO-IT test, validated", _MSCOCO_IT / "captions_ita_testset_validated.json", "coco/val2014"),
    CaptionSet("XM3600-it", Path("xm3600/captions.jsonl"), "xm3600/images"),
    CaptionSet("XTD-it", Path("xtd/test_1kcaptions_it.txt"), "xtd/images"),
    CaptionSet("Flickr8k-it", HERE / "flickr8k_it.jsonl", "RlNZLER/Image-Text-Matching/data/images",
               "318 of the 1,000 test photographs, by a hash of their names; one caption each, translated by hand"),
)  # fmt: skip

ZERO_SHOT = (
    ClassSet("ImageNet validation", "imagenet/val"),
    ClassSet("Tiny ImageNet validation", f"{_TINY}/images", f"{_TINY}/val_annotations.txt",
             "64 px, 200 classes, asked against all 1,000 labels"),
    ClassSet("imagenet-sample-images", "EliSchwartz/imagenet-sample-images", note="one photograph a class"),
)  # fmt: skip

ORIGINAL_LABELS = "clip-italian/clip-italian/evaluation/imagenet_labels_IT.tsv"  # on the branch imagenet_templates

MODELS = {
    "clipita-mini": "clipita-mini",
    "CLIP-Italian": "clip-italian/clip-italian",
    "mCLIP": "sentence-transformers/clip-ViT-B-32-multilingual-v1",
    "OpenCLIP XLM-R base": "laion/CLIP-ViT-B-32-xlm-roberta-base-laion5B-s13B-b90k",
    "OpenCLIP XLM-R large": "laion/CLIP-ViT-H-14-frozen-xlm-roberta-large-laion5B-s13B-b90k",
    "SigLIP": "google/siglip-base-patch16-256-multilingual",
    "SigLIP2": "google/siglip2-base-patch32-256",
    "NLLB-SigLIP base": "visheratin/nllb-siglip-mrl-base",
}

# What a model has seen of a set; readers have to know it to judge the scores.
TRAINED_ON = {
    ("clipita-mini", "imagenet-sample-images"): "trained on these very photographs, and on most words of imagenet-it",
    ("clipita-mini", "Tiny ImageNet validation"): "its image tower is a classifier of ImageNet's 1,000 classes; its "
    "projections saw other photographs of these 200, and most of the words of imagenet-it",
    ("clipita-mini", "ImageNet validation"): "its image tower is a classifier of ImageNet's 1,000 classes",
    ("clipita-mini", "Flickr8k-it"): "trained on 7,090 other photographs of Flickr8k with English captions",
}  # fmt: skip
