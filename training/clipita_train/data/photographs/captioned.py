"""Read collections whose photographs have words of their own: a sentence, a title, or a telling file name.

Captions may be in any language that the text tower reads.
"""

import csv
import html
import json
import re
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from clipita_train.data.photographs.readers import SUFFIXES, CollectionItem, matching, stable_order

CAPTIONS_EACH = 5
_TAG = re.compile(r"<[^>]+>")
_NOT_WORDS = re.compile(r"[^a-zà-öø-ÿ']+")
_CAMEL = re.compile(r"(?<=[a-zà-ÿ])(?=[A-Z])")
_SENTENCE_END = re.compile(r"[。！？\n]|[.!?](?=\s)")
_MARKDOWN_IMAGE = re.compile(r"!\[([^\]]{8,300})\]\(\s*<?([^)>\s]+)")
# Words that downloads and cameras put into file names, and that say nothing of what is shown.
_NAME_NOISE = frozenset(
    {*"abcdefghijklmnopqrstuvwxyz", "jpg", "jpeg", "png", "img", "dsc", "image", "images", "photo", "photos", "picture"}
    | {"pic", "unsplash", "pexels", "pixabay", "copy", "small", "large", "thumb", "min", "scaled", "resized", "final"}
    | {"new", "free", "by"}
)


def captions_table(
    images: str,
    table: str,
    *,
    name: int | str = 0,
    texts: Sequence[int | str] = (1,),
    delimiter: str = ",",
    take: int | None = None,
    without: Sequence[str] = (),
) -> Callable[[Path], Iterator[CollectionItem]]:
    """Make a reader of a table with the name of a photograph and its captions on each line.

    Args:
        images: A pattern of the photographs' paths in the repository. They are found by their names without suffix.
        table: The table, relative to the repository: text with columns, JSON lines if it is called `.jsonl`, a list of
            JSON objects if `.json`.
        name: The column of the photograph's name: a heading, a key of JSON, or 0 in a table without a heading.
        texts: The columns of captions, or of lists of them in JSON; in a table without a heading, all that follows the
            name is one.
        delimiter: What is between columns.
        take: Maximum number of photographs; None takes all.
        without: Names of photographs to leave out.
    """

    def read(root: Path) -> Iterator[CollectionItem]:
        captions: dict[str, list[str]] = defaultdict(list)
        for row in _rows(root / table, name, delimiter):
            cells = [row[column] for column in texts]
            several = [text for cell in cells for text in (cell if isinstance(cell, list) else [cell])]
            captions[Path(row[name]).stem] += [caption for text in several if (caption := plain(str(text)))]
        paths = {path.stem: path for path in sorted(root.glob(images)) if path.suffix.lower() in SUFFIXES}
        found = [paths[stem] for stem in captions if stem in paths and captions[stem] and stem not in without]
        if not found:
            raise FileNotFoundError(f"no captioned photographs at {root / images}: is the clone complete?")
        for path in sorted(found, key=stable_order)[:take]:
            yield CollectionItem(path, "train", captions=tuple(dict.fromkeys(captions[path.stem]))[:CAPTIONS_EACH])

    return read


def _rows(table: Path, name: int | str, delimiter: str) -> Iterator[Mapping[Any, Any]]:
    """Yield the lines of a table as mappings, from numbers of columns if `name` is a number."""
    with table.open(newline="", encoding="utf-8-sig") as file:
        if table.suffix == ".jsonl":
            yield from (json.loads(line) for line in file if line.strip())
        elif table.suffix == ".json":
            yield from json.load(file)
        elif isinstance(name, str):
            yield from (
                {key: value or "" for key, value in row.items()} for row in csv.DictReader(file, delimiter=delimiter)
            )
        else:
            yield from (dict(enumerate(line.rstrip("\r\n").split(delimiter, 1))) for line in file if delimiter in line)


def words_json(
    table: str, *, image: str, texts: Sequence[str], take: int | None = None
) -> Callable[[Path], Iterator[CollectionItem]]:
    """Make a reader of a JSON list of objects, each with the path of a photograph and texts about it.

    Args:
        table: The JSON file in the repository.
        image: The key of the photograph's path, relative to the repository.
        texts: The keys of captions.
        take: Maximum number of photographs; None takes all.
    """

    def read(root: Path) -> Iterator[CollectionItem]:
        for entry in json.loads((root / table).read_text("utf-8"))[:take]:
            captions = tuple(text for key in texts if (text := plain(str(entry.get(key) or ""))))
            path = root / str(entry[image])
            if captions and path.is_file():
                yield CollectionItem(path, "train", captions=captions)

    return read


def named_files(
    *patterns: str, least: int = 1, take: int | None = None, without: Sequence[str] = ()
) -> Callable[[Path], Iterator[CollectionItem]]:
    """Make a reader of photographs whose file names say what they show, such as `man-riding-wave.jpg`.

    Args:
        patterns: Where they are in the repository.
        least: How many words a name must have.
        take: Maximum number of photographs; None takes all.
        without: Patterns of names, without suffix, to leave out.
    """

    def read(root: Path) -> Iterator[CollectionItem]:
        paths = sorted(matching(root, patterns), key=stable_order)
        kept = [path for path in paths if not any(fnmatchcase(path.stem, pattern) for pattern in without)]
        named = [(path, words) for path in kept if (words := name_words(path.stem))]
        for path, words in [pair for pair in named if len(pair[1].split()) >= least][:take]:
            yield CollectionItem(path, "train", captions=(words,))

    return read


def texts_beside(*patterns: str, texts: str = ".") -> Callable[[Path], Iterator[CollectionItem]]:
    """Make a reader of photographs with a text file of the same name each, whose first sentence is the caption.

    Args:
        patterns: Where the photographs are in the repository.
        texts: The folder of the texts in the repository.
    """

    def read(root: Path) -> Iterator[CollectionItem]:
        for path in sorted(matching(root, patterns), key=stable_order):
            text = root / texts / f"{path.stem}.txt"
            if text.is_file() and (caption := plain(_SENTENCE_END.split(text.read_text("utf-8").strip(), 1)[0])):
                yield CollectionItem(path, "train", captions=(caption,))

    return read


def markdown_images(*patterns: str, roots: Sequence[str] = (".",)) -> Callable[[Path], Iterator[CollectionItem]]:
    """Make a reader of pages in Markdown, whose images have alternative texts of eight characters and more.

    Args:
        patterns: Where the pages are in the repository.
        roots: Folders that an address with a leading slash may be relative to.
    """

    def read(root: Path) -> Iterator[CollectionItem]:
        captions: dict[Path, list[str]] = defaultdict(list)
        pages = sorted({page for pattern in patterns for page in root.glob(pattern)})
        if not pages:
            raise FileNotFoundError(f"no pages at {root / patterns[0]}: is the clone complete?")
        for page in pages:
            for text, address in _MARKDOWN_IMAGE.findall(page.read_text("utf-8", errors="replace")):
                places = [page.parent / address, *(root / folder / address.lstrip("/") for folder in roots)]
                for path in places:
                    if path.suffix.lower() in SUFFIXES and path.is_file():
                        captions[path.resolve()].append(plain(text))
                        break
        for path in sorted(captions):
            texts = tuple(dict.fromkeys(text for text in captions[path] if " " in text))
            if texts and path.is_relative_to(root.resolve()):
                yield CollectionItem(root / path.relative_to(root.resolve()), "train", captions=texts[:CAPTIONS_EACH])

    return read


def plain(text: str) -> str:
    """Return a caption without tags, entities, quotes around it, and a full stop at its end."""
    return " ".join(html.unescape(_TAG.sub("", text)).split()).strip("\"' .*")


def name_words(stem: str) -> str:
    """Return the words of a file name in small letters, without numbers and what cameras and downloads add.

    Names that end in an identifier, such as Unsplash's, lose it, since it mixes letters and digits.
    """
    kept = []
    for part in re.split(r"[\s_\-.+()\[\],%]+", stem):
        if any(c.isdigit() for c in part) and not part.rstrip("0123456789").isalpha():
            continue  # an identifier
        for word in _CAMEL.sub(" ", part.rstrip("0123456789")).lower().split():
            word = _NOT_WORDS.sub("", word)
            if word and word not in _NAME_NOISE:
                kept.append(word)
    return " ".join(kept)
