"""Read photographs and captions from their publishers' formats as rows.

| reader | file | from |
|---|---|---|
| wit | `wit_v1.train.all-00000-of-00010.tsv.gz` | google-research-datasets/wit |
| conceptual_3m | `Train_GCC-training.tsv`: caption, address | google-research-datasets/conceptual-captions |
| conceptual_12m | `cc12m.tsv`: address, caption | google-research-datasets/conceptual-12m |
| json_lines | one `{"image_path": ..., "captions": [...]}` a line | clip-italian/clip-italian |
| mscoco_it | `captions_ita_trainingset_{train,val}2014.json.gz`, and COCO's folders of 2014 | crux82/mscoco-it |
| sidecars | a folder with `NAME.txt` beside `NAME.jpg` | |

A broken row is yielded as `Bad`, and reading goes on. `Tally.good` separates the two.
"""

import json
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from clipita.images.photo_files import find_photos
from clipita_train.data.captions.files import locate, mscoco
from clipita_train.data.pairs.lines import read_lines
from clipita_train.data.pairs.rows import Bad, Row

WIT_COLUMNS = [
    "language",
    "page_url",
    "image_url",
    "page_title",
    "section_title",
    "hierarchical_section_title",
    "caption_reference_description",
    "caption_attribution_description",
    "caption_alt_text_description",
    "mime_type",
    "original_height",
    "original_width",
    "is_main_image",
    "attribution_passes_lang_id",
    "page_changed_recently",
    "context_page_description",
    "context_section_description",
]
WIT_CAPTIONS = {
    kind: WIT_COLUMNS.index(f"caption_{kind}_description") for kind in ("reference", "attribution", "alt_text")
}
WIT_LICENCE = "CC BY-SA 3.0; each image has its own"
CONCEPTUAL_LICENCE = "Conceptual Captions terms; each image has its own"
MSCOCO_LICENCE = "CC BY 4.0; each image has its own"

Items = Iterator[Row | Bad]


def wit(path: Path, *, captions: tuple[str, ...] = ("reference",), language: str = "it") -> Items:
    """Read the rows of WIT in one language that have a caption of these kinds, each caption once.

    Args:
        path: The file.
        captions: Kinds of captions: "reference" (below the image), "attribution" (on the image's own page, often in
            several languages) and "alt_text".
        language: The language, ISO 639-1.

    Raises:
        ValueError: WIT has no such kind of captions.
    """
    if unknown := [kind for kind in captions if kind not in WIT_CAPTIONS]:
        raise ValueError(f"WIT has no captions of the kind {unknown[0]!r}; there are: {', '.join(WIT_CAPTIONS)}")
    for item in read_lines(path):
        if isinstance(item, Bad):
            yield item
            continue
        place, cells = item[0], item[1].split("\t")
        if len(cells) != len(WIT_COLUMNS):
            yield Bad(place, f"a line without {len(WIT_COLUMNS)} columns")
        elif cells != WIT_COLUMNS and cells[0] == language:
            texts = dict.fromkeys(text for kind in captions if (text := cells[WIT_CAPTIONS[kind]].strip()))
            if not is_address(cells[2]):
                yield Bad(place, "no address of an image")
            elif texts:  # other rows have captions of other kinds only
                yield Row("wit", place, cells[2], tuple(texts), language, WIT_LICENCE, cells[1])


def conceptual_3m(path: Path) -> Items:
    """Read English captions and addresses; the file's three further columns, of machine labels, are not read."""
    return _conceptual(path, "conceptual_3m", caption=0, address=1, widths={2, 5})


def conceptual_12m(path: Path) -> Items:
    """Read English captions and addresses, where the address comes first."""
    return _conceptual(path, "conceptual_12m", caption=1, address=0, widths={2})


def _conceptual(path: Path, source: str, *, caption: int, address: int, widths: set[int]) -> Items:
    for item in read_lines(path):
        if isinstance(item, Bad):
            yield item
            continue
        place, cells = item[0], item[1].split("\t")
        if len(cells) not in widths:
            yield Bad(place, f"a line without {min(widths)} columns")
        elif not is_address(cells[address]):
            yield Bad(place, "no address of an image")
        elif not cells[caption].strip():
            yield Bad(place, "a blank caption")
        else:
            yield Row(source, place, cells[address], (cells[caption].strip(),), "en", CONCEPTUAL_LICENCE)


def json_lines(path: Path, images: Path, *, source: str, licence: str, language: str = "it") -> Items:
    """Read the format of CLIP-Italian; `locate` finds the paths in the folder `images`."""
    for item in read_lines(path):
        if isinstance(item, Bad):
            yield item
            continue
        place, text = item
        try:
            fields: Any = json.loads(text)
            name, captions = fields["image_path"], fields["captions"]
        except (ValueError, KeyError, TypeError, RecursionError):
            yield Bad(place, "not a JSON object with image_path and captions")
            continue
        if not isinstance(name, str) or not isinstance(captions, list) or not all(isinstance(c, str) for c in captions):
            yield Bad(place, "image_path is not a string, or captions are not a list of strings")
            continue
        yield captioned(source, place, locate(images, [name])[0], captions, language, licence)


def mscoco_it(path: Path, coco: Path) -> Items:
    """Read the images of MSCOCO-IT in the order of the file, each with its captions.

    Its training set comes from both of COCO's sets of 2014, and its files name images by number only. The folder `coco`
    must hold `train2014/` and `val2014/`.
    """
    found: dict[str, list[str]] = {}
    try:
        for image, caption in mscoco(path, "it"):
            found.setdefault(image, []).append(caption if isinstance(caption, str) else "")
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, EOFError, OSError):
        yield Bad(path.name, "not in COCO's format; captions from here on are not read")
    for name, captions in found.items():
        places = locate(coco, [name]) + locate(coco, [name.replace("val2014", "train2014")])
        image = next((place for place in places if place is not None), None)
        yield captioned("mscoco_it", name, image, captions, "it", MSCOCO_LICENCE)


def sidecars(folder: Path, *, source: str, licence: str, language: str = "it") -> Items:
    """Read all photographs under a folder, by name, with the captions in the lines of `NAME.txt` beside them.

    Files that `find_photos` leaves aside are not mentioned. Only a picture that cannot be read, but has captions of its
    own, is reported as bad.
    """
    found = find_photos(folder)
    for place, reason in found.failed.items():
        yield Bad(place, reason)
    stems = {PurePosixPath(key).with_suffix("") for key in found.keys}
    for key, reason in found.pictures_not_read().items():
        if PurePosixPath(key).with_suffix("") not in stems and (folder / key).with_suffix(".txt").is_file():
            yield Bad(key, reason)
    for image in sorted(folder / key for key in found.keys):
        key, captions = image.relative_to(folder).as_posix(), []
        text = image.with_suffix(".txt")
        if not text.is_file():
            yield Bad(key, "no captions beside the image")
            continue
        for item in read_lines(text):
            if isinstance(item, Bad):
                yield item
            else:
                captions.append(item[1])
        yield captioned(source, key, image, captions, language, licence)


def captioned(
    source: str, key: str, image: Path | bytes | str | None, captions: list[str], language: str, licence: str
) -> Row | Bad:
    """Return a row, or a `Bad` that says why there is none.

    A row needs a caption that is not blank, and an image of more than zero bytes.
    """
    texts = tuple(text for caption in captions if (text := caption.strip()))
    if not texts:
        return Bad(key, "no captions")
    if image is None:
        return Bad(key, "the image is missing")
    if not (image.stat().st_size if isinstance(image, Path) else image):
        return Bad(key, "an image of zero bytes")
    return Row(source, key, image, texts, language, licence)


def is_address(text: str) -> bool:
    """Return whether a text is an address of HTTP or HTTPS."""
    try:
        parts = urlsplit(text)
    except ValueError:  # e.g. brackets that hold no IPv6 address
        return False
    return parts.scheme in ("http", "https") and bool(parts.netloc)
