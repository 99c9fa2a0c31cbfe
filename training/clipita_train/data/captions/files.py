"""Read photographs with captions from files in their publishers' formats.

| format | file | from |
|---|---|---|
| mscoco | `captions_ita_{devset,testset}_{un,}validated.json`, also as `.json.gz` | crux82/mscoco-it, and COCO's own |
| xm3600 | `captions.jsonl` | google.github.io/crossmodal-3600 |
| xtd | `test_1kcaptions_it.txt`, `test_image_names.txt` beside it | adobe-research/Cross-lingual-Test-Dataset-XTD10 |
| jsonl | one `{"image_path": ..., "captions": [...]}` a line | clip-italian/clip-italian |
| flickr8k | `Flickr8k.token.txt` | Flickr8k |
"""

import gzip
import json
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

CaptionPairs = Iterator[tuple[str, str]]  # the file name of an image, as published, and one of its captions


@dataclass(frozen=True)
class Captioned:
    """The captions of an image, and its file name or path as published."""

    image: str
    captions: tuple[str, ...]


def mscoco(path: Path, _: str) -> CaptionPairs:
    """Read COCO's annotations: {"images": [{"id", "file_name"}], "annotations": [{"image_id", "caption"}]}.

    In the validated files of MSCOCO-IT an `image_id` may be a number or a string of digits; both mean the same image.
    """
    data = json.loads(_text(path))
    names = {int(image["id"]): image["file_name"] for image in data.get("images", ())}
    for annotation in data["annotations"]:
        number = int(annotation["image_id"])
        # Development and test images of MSCOCO-IT are from COCO's validation images of 2014.
        yield names.get(number, f"COCO_val2014_{number:012d}.jpg"), annotation["caption"]


def xm3600(path: Path, locale: str) -> CaptionPairs:
    """Read an image from each line, {"image/key": "0001...", "it": {"caption": [...]}, ...}; files are KEY.jpg."""
    for line in _lines(path):
        fields = json.loads(line)
        for caption in fields[locale]["caption"]:
            yield f"{fields['image/key']}.jpg", caption


def xtd(path: Path, _: str) -> CaptionPairs:
    """Read one caption from each line; the file beside it has the name of the image on the same line."""
    names, captions = _lines(path.with_name("test_image_names.txt")), _lines(path)
    if len(names) != len(captions):
        raise ValueError(f"test_image_names.txt has {len(names)} lines and {path.name} has {len(captions)}")
    yield from zip(names, captions, strict=True)


def jsonl(path: Path, _: str) -> CaptionPairs:
    """Read one image from each line: {"image_path": ..., "captions": [...]}."""
    for line in _lines(path):
        fields = json.loads(line)
        for caption in fields["captions"]:
            yield fields["image_path"], caption


def flickr8k(path: Path, _: str) -> CaptionPairs:
    """Read one caption from each line: `NAME.jpg#0<tab>A caption .`."""
    for line in _lines(path):
        key, caption = line.split("\t", 1)
        yield key.rsplit("#", 1)[0], caption


FORMATS: dict[str, Callable[[Path, str], CaptionPairs]] = {
    "mscoco": mscoco,
    "xm3600": xm3600,
    "xtd": xtd,
    "jsonl": jsonl,
    "flickr8k": flickr8k,
}


def read_captions(
    path: Path, format: str | None = None, *, locale: str = "it", only: Iterable[str] | None = None
) -> list[Captioned]:
    """Read the images of a file, sorted by name, each with its captions in the order of the file.

    Args:
        path: The file.
        format: One of `FORMATS`; None guesses it from the file's name and first line.
        locale: The language to read from xm3600, which has 36.
        only: Names of the images to read, e.g. a published test list; None reads all.

    Raises:
        FileNotFoundError: The file, or the one that belongs beside it, is missing.
        ValueError: The file is not in this format, has no captions or a blank one, or lacks an image of `only`.
    """
    format = format or guess_format(path)
    if format not in FORMATS:
        raise ValueError(f"{format!r} is not a format of captions; expected one of: {', '.join(FORMATS)}")
    found: dict[str, list[str]] = {}
    try:
        for image, caption in FORMATS[format](path, locale):
            if not caption.strip():
                raise ValueError(f"a caption of {image} is blank")
            found.setdefault(image, []).append(caption.strip())
    except KeyError as error:
        raise ValueError(f"{path} is not in the format {format}: {error} is missing") from None
    except (ValueError, TypeError, AttributeError, EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise ValueError(f"{path} is not in the format {format}: {error}") from None
    if not found:
        raise ValueError(f"{path} has no captions")
    if only is not None:
        found = _only(found, list(only), path)
    return [Captioned(image, tuple(captions)) for image, captions in sorted(found.items())]


def guess_format(path: Path) -> str:
    """Guess the format from the file's name, and for JSON lines from the first line.

    Raises:
        ValueError: The name does not tell.
    """
    if path.name.endswith((".json", ".json.gz")):
        return "mscoco"
    if path.name.endswith(".jsonl"):
        first = next(iter(_lines(path)), "")
        return "xm3600" if '"image/key"' in first else "jsonl"
    if path.name.startswith("test_1kcaptions_"):
        return "xtd"
    if path.name.endswith(".token.txt"):
        return "flickr8k"
    raise ValueError(
        f"the format of {path} is not known. Add it after a colon, {path}:FORMAT, as one of: {', '.join(FORMATS)}"
    )


def locate(folder: Path, images: Sequence[str]) -> list[Path | None]:
    """Find the file of each image in a folder.

    An image is looked for by its path as published, then by its file name alone, then in COCO's own folders
    (`train2014/COCO_train2014_...`).

    Returns:
        For each image its path, or None if it is not there.

    Raises:
        ValueError: Two images would be the same file.
    """
    paths: list[Path | None] = []
    taken: dict[Path, str] = {}
    for image in images:
        name = image.rsplit("/", 1)[-1]
        candidates = [folder / image, folder / name]
        if name.startswith("COCO_"):
            candidates.append(folder / name.split("_")[1] / name)
        path = next((candidate for candidate in candidates if candidate.is_file()), None)
        paths.append(path)
        if path is not None and taken.setdefault(path, image) != image:
            raise ValueError(f"{taken[path]!r} and {image!r} would both be the file {path}")
    return paths


def _only(found: dict[str, list[str]], only: list[str], path: Path) -> dict[str, list[str]]:
    missing = [name for name in only if name not in found]
    if missing:
        raise ValueError(f"{path} has no captions of {len(missing)} of the wanted images: {', '.join(missing[:5])}")
    return {name: found[name] for name in only}


def _text(path: Path) -> str:
    data = path.read_bytes()
    return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8-sig")


def _lines(path: Path) -> list[str]:
    """Return the lines of a file without line ends (XTD has CR LF), and without an empty last line."""
    lines = [line.removesuffix("\r") for line in _text(path).split("\n")]  # splitlines would also split at U+2028
    return lines[:-1] if lines and not lines[-1] else lines
