"""Write labels into XMP files beside the photographs, which digiKam, darktable and Lightroom read; originals stay."""

import dataclasses
import os
import shutil
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path

from clipita.images.photo_files import is_picture_name
from clipita.search.labels.labeling import Labelled
from clipita.search.labels.xmp import EMPTY, XmpError, with_keywords
from clipita.system.files import replacing

_SUFFIX = ".xmp"
_MOST_BYTES = 64 << 20  # darktable's largest, with painted masks, have a few million


@dataclasses.dataclass(frozen=True)
class SidecarSummary:
    """Says what was done to the XMP files of photographs.

    Attributes:
        written: Files that were made or changed.
        unchanged: How many photographs needed no change.
        failed: Photographs whose labels could not be written, with the reason.
    """

    written: list[Path]
    unchanged: int
    failed: dict[str, str]


def write_sidecars(photos: Path, labelled: Iterable[Labelled], labels: Iterable[Sequence[str]]) -> SidecarSummary:
    """Write the labels of photographs into the XMP files beside them.

    A photograph without labels gets no file. Labels that an earlier call gave it are taken out if they are among these
    and do not fit any more. Keywords and fields of others stay as they are, to the byte. A file that cannot be
    understood is left alone.

    Args:
        photos: The folder of photographs.
        labelled: What `Index.label` returned.
        labels: All labels that it could have given, each with what it is a kind of before it: [("mare",), ("Animali",
            "Felini", "gatto")].
    """
    written: list[Path] = []
    unchanged = 0
    failed: dict[str, str] = {}
    folders: dict[Path, _Folder] = {}
    path_of = {path[-1]: tuple(path) for path in labels}
    for item in labelled:
        photo = photos / item.path
        paths = [path_of[match.label] for match in item.labels]
        sidecar = photo
        try:
            if photo.parent not in folders:
                folders[photo.parent] = _Folder(photo.parent)
            sidecar = folders[photo.parent].sidecar(photo.name)
            if _update(sidecar, paths, path_of.values()):
                written.append(sidecar)
            else:
                unchanged += 1
        except XmpError as error:
            failed[item.path] = f"{str(sidecar)!r} was left alone: {error}."
        except OSError as error:
            failed[item.path] = f"its XMP file cannot be written: {error.strerror or error}."
    return SidecarSummary(written, unchanged, failed)


class _Folder:
    """The names in a folder, listed once for all its photographs."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        names = os.listdir(folder)
        self._names = set(names)
        self._sidecars = {name.casefold(): name for name in names if name.casefold().endswith(_SUFFIX)}
        self._pictures = Counter(_stem(name) for name in names if is_picture_name(name))

    def sidecar(self, name: str) -> Path:
        """Return the XMP file of a photograph: the one that is there, or IMG_1.jpg.xmp.

        IMG_1.xmp is that of IMG_1.jpg only if no other picture has that name: beside a raw file it is the raw file's.

        Raises:
            FileNotFoundError: there is no such photograph any more.
        """
        if name not in self._names:
            raise FileNotFoundError(None, "the photograph is gone")
        own = name + _SUFFIX
        found = self._sidecars.get(own.casefold())
        if found is None and self._pictures[_stem(name)] == 1:
            found = self._sidecars.get(_stem(name) + _SUFFIX)
        return self._folder / (found or own)


def _stem(name: str) -> str:
    return os.path.splitext(name)[0].casefold()


def _update(sidecar: Path, paths: Sequence[Sequence[str]], among: Iterable[Sequence[str]]) -> bool:
    """Bring one file up to date, and tell whether it was changed. It is replaced whole, or stays as it was."""
    target = sidecar.resolve() if sidecar.is_symlink() else sidecar
    try:
        if target.stat().st_size > _MOST_BYTES:
            raise XmpError(f"it has more than {_MOST_BYTES >> 20} MB")
        before = target.read_bytes()
    except FileNotFoundError:
        if not paths:
            return False
        before = None
    after = with_keywords(before, paths, among)
    if after == before:
        return False
    if after == EMPTY.encode():  # made by clipita, and nobody wrote anything else into it
        target.unlink()
        return True
    with replacing(target, lasting=True) as part:
        part.write_bytes(after)
        if before is not None:
            shutil.copymode(target, part)
    return True
