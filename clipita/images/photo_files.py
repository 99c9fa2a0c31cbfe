"""Decide which files of a folder are photographs, for every command that reads a folder, and account for the others.

A photograph is a regular file, or a link to one, whose name has an ending of a format that clipita decodes. Pictures in
other formats, hidden files, and the thumbnails and bins of systems and other programs are left aside, and counted by
reason; so are raw files beside a picture of the same name, which the camera or its owner made of them. Links to folders
are followed last, and each folder is read once: a photograph that can be reached without a link is known by that path.
"""

import dataclasses
import fnmatch
import importlib.util
import os
import re
import stat
from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from clipita.images import raw
from clipita.locale.language import phrase, with_marks

# Endings of file names; the decoders tell the true format (`clipita.images.pixels.FORMATS`).
_PILLOW = frozenset(
    (
        *(".jfif", ".jpe", ".jpeg", ".jpg", ".mpo"),
        *(".j2c", ".j2k", ".jp2", ".jpc", ".jpf", ".jpx"),
        *(".pbm", ".pfm", ".pgm", ".pnm", ".ppm"),
        *(".apng", ".avif", ".avifs", ".bmp", ".gif", ".png", ".tif", ".tiff", ".webp"),
    )
)
_HEIF = frozenset((".heic", ".heics", ".heif", ".heifs", ".hif"))
_OTHER_PICTURES = frozenset(
    (
        *(".afphoto", ".ai", ".bpg", ".cdr", ".dds", ".emf", ".eps", ".exr", ".hdr", ".icns", ".ico", ".jxl", ".jxr"),
        *(".kra", ".pcx", ".psb", ".psd", ".svg", ".svgz", ".tga", ".wmf", ".xcf"),
    )
)

INDEX_FOLDER = ".clipita"  # beside the photographs that it is an index of

# Folders in which systems and programs keep copies and deleted files. Most others are hidden, and need no entry: QNAP's
# .@__thumb, macOS's .Trashes, freedesktop's .thumbnails, Picasa's .picasaoriginals and digiKam's .dtrash.
_NO_PHOTOGRAPHS_OF_THE_USER = frozenset(
    (
        *("@eadir", "#recycle", "#snapshot", "@sharesnap", "@tmp"),  # Synology; also TerraMaster, ReadyNAS
        *("@__thumb", "@recycle", "@recently-snapshot", "@transcode"),  # QNAP
        *("$recycle.bin", "recycler", "recycled", "system volume information", "found.000"),  # Windows
        *("__macosx", "network trash folder", "temporary items"),  # macOS, in archives and on shares
        *("lost+found", "lost.dir"),  # Linux, Android
        *("~snapshot", "trashbox", "files_trashbin", "files_versions"),  # NetApp, Buffalo, Nextcloud
    )
)
_PREVIEWS = (".lrdata", ".lrcat-data")  # Lightroom's
# Apple's libraries are folders that hold each photograph several times; the original files are in these folders.
_APPLE_LIBRARIES = (".photoslibrary", ".photolibrary", ".migratedphotolibrary", ".aplibrary")
_APPLE_ORIGINALS = frozenset(("originals", "masters"))

# The reasons for which a file or folder is left aside, in the order in which they are reported: the words for one and
# for several, and what to do.
_REASONS = {
    "heif": ("in HEIC", "in HEIC", "pip install 'clipita[heic]' reads it"),
    "raw": ("raw", "raw", "pip install 'clipita[raw]' reads their previews"),
    "raw_beside": ("raw beside its picture", "raw beside their pictures", ""),
    "other_formats": ("in a format that is not read", "in formats that are not read", "export as JPEG or PNG"),
    "not_regular": ("pipe, socket or device", "pipes, sockets or devices", ""),
    "links_to_nothing": ("link to what is not there", "links to what is not there", "is its disk mounted?"),
    "read_already": ("link to a folder that is read already", "links to folders that are read already", ""),
    "leads_back_up": ("link back up to a folder it is in", "links back up to folders they are in", "name that folder"),
    "thumbnails_and_bins": (
        "folder of thumbnails, snapshots or deleted files",
        "folders of thumbnails, snapshots or deleted files",
        "",
    ),
    "hidden": ("hidden", "hidden", ""),
    "excluded": ("excluded as asked", "excluded as asked", ""),
    "no_pictures": ("that is no picture", "that are no pictures", ""),
}
_PICTURES = ("heif", "raw", "other_formats", "not_regular")
_BY_SUFFIX = ("heif", "raw", "raw_beside", "other_formats", "no_pictures")
_SHOWN = 3


class Stamp(NamedTuple):
    """The size of a file in bytes and the time of its last change in nanoseconds, which tell that it was replaced."""

    size: int
    mtime_ns: int


@dataclasses.dataclass(frozen=True)
class PhotoFiles:
    """The contents of a folder: its photographs, and all that was left aside.

    Attributes:
        keys: The paths of the photographs below the folder, with "/" between their parts.
        stamps: The size and time of each photograph when it was found.
        failed: Paths that could not be read, with the reason.
        left_aside: Other files and folders, by the reason: "heif", "raw", "raw_beside", "other_formats",
            "not_regular", "links_to_nothing", "read_already", "leads_back_up", "thumbnails_and_bins", "hidden",
            "excluded" or "no_pictures".
        unseen: Folders that may hold more photographs: they cannot be listed, or are links whose target is gone now.
    """

    keys: list[str]
    stamps: dict[str, Stamp]
    failed: dict[str, str]
    left_aside: dict[str, list[str]]
    unseen: list[str]

    def describe(self) -> str:
        """Say on one line how many files were left aside, why, and how to read them; "" if there are none."""
        parts: list[str] = []
        for reason, names in self.left_aside.items():
            what = _suffixes(names) if reason in _BY_SUFFIX else _first(names)
            one, several, advice = _REASONS[reason]
            count = with_marks(f"{len(names):,}")
            described = f"{count} {phrase(one if len(names) == 1 else several)} ({what})"
            parts.append(f"{described}: {phrase(advice)}" if advice else described)
        return phrase("Left aside: {parts}.", parts="; ".join(parts)) if parts else ""

    def pictures_not_read(self) -> dict[str, str]:
        """Return the pictures that are left aside for their format, each with the reason and a remedy."""
        reasons: dict[str, str] = {}
        for reason in _PICTURES:
            one, _, advice = _REASONS[reason]
            reasons |= dict.fromkeys(self.left_aside.get(reason, ()), f"{one}: {advice}" if advice else one)
        return reasons

    def counts(self) -> dict[str, int]:
        """Return how many were left aside for each reason."""
        return {reason: len(names) for reason, names in self.left_aside.items()}

    def may_hold(self, key: str) -> bool:
        """Tell whether a photograph that was not found may be in a folder that could not be read."""
        return any(key.startswith(f"{place}/") or place == "." for place in self.unseen)


def readable_suffixes() -> frozenset[str]:
    """Return the endings of photographs' names, in lower case; of HEIC and raw files if their decoders are there."""
    heif = _HEIF if importlib.util.find_spec("pillow_heif") else frozenset[str]()
    return _PILLOW | heif | (raw.SUFFIXES if raw.can_read_raw() else frozenset[str]())


def is_picture_name(name: str) -> bool:
    """Tell whether a file name has the ending of a picture, in a format that is read or in another."""
    return Path(name).suffix.lower() in _PILLOW | _HEIF | raw.SUFFIXES | _OTHER_PICTURES


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder of this name is hidden. macOS writes such files beside photographs (`._x.jpg`)."""
    return name.startswith(".")


def is_users_folder(path: Path) -> bool:
    """Tell whether a folder is the user's own, by its name: it is not hidden, and no program keeps its files there."""
    name, parent = path.name.casefold(), path.parent.name.casefold()
    if parent.endswith(_APPLE_LIBRARIES):
        return name in _APPLE_ORIGINALS
    return not (is_hidden(name) or name in _NO_PHOTOGRAPHS_OF_THE_USER or name.endswith(_PREVIEWS))


def find_photos(folder: Path, *, exclude: Sequence[str] = (), any_bytes: bool = False) -> PhotoFiles:
    """Find the photographs in a folder and in all folders below it.

    Args:
        folder: The folder. It may be a link, and may have a name that is left aside inside other folders.
        exclude: Patterns as a shell has them, "*.gif" or "bozze" or "2019/scarti/*". Files and folders are left aside
            whose name, or whose path below the folder, fits one; capitals count.
        any_bytes: Whether a name that is not valid UTF-8 is taken, as `os.fsdecode` gives it; otherwise it is among
            `failed`.

    Returns:
        The contents. A folder that cannot be listed is among `failed`, and the others are read.

    Example:
        >>> find_photos(Path("foto")).keys
        ['2023/mare.heic', 'gatto.jpg']
    """
    walk = _FolderWalk(folder, exclude, any_bytes)
    walk.read(folder, followed=False)
    while walk.links:  # in the order of their names; links that are found on the way come last
        walk.follow(walk.links.popleft())
    return walk.found()


class _FolderWalk:
    def __init__(self, folder: Path, exclude: Sequence[str], any_bytes: bool) -> None:
        self._folder, self._any_bytes = folder, any_bytes
        self._is_excluded = _matcher(exclude)
        self._readable = readable_suffixes()
        self._seen: set[tuple[int, int] | str] = set()
        self._stamps: dict[str, Stamp] = {}
        self._failed: dict[str, str] = {}
        self._left_aside: dict[str, list[str]] = {reason: [] for reason in _REASONS}
        self._unseen: list[str] = []
        self.links: deque[Path] = deque()

    def found(self) -> PhotoFiles:
        pictures = {_stem(key) for key in self._stamps if not raw.is_raw_name(key)}
        for key in [key for key in self._stamps if raw.is_raw_name(key) and _stem(key) in pictures]:
            del self._stamps[key]
            self._left_aside["raw_beside"].append(key)
        return PhotoFiles(
            sorted(self._stamps),
            self._stamps,
            dict(sorted(self._failed.items())),
            {reason: sorted(names) for reason, names in self._left_aside.items() if names},
            sorted(self._unseen),
        )

    def follow(self, link: Path) -> None:
        """Read the folder that a link leads to, unless it was read already or holds the link."""
        key = self._key(link)
        try:
            target = link.resolve(strict=True)
            above = (link.parent.resolve(), self._folder.resolve())
            if any(place.is_relative_to(target) for place in above):
                self._left_aside["leads_back_up"].append(key)
            else:
                self.read(link, followed=True)
        except (OSError, RuntimeError) as error:  # RuntimeError: a loop, before Python 3.13
            self._cannot_list(link, error)

    def read(self, folder: Path, *, followed: bool) -> None:
        """Read all files and folders below a folder, and keep links to folders for later.

        Args:
            folder: The folder.
            followed: Whether it was reached by a link, so that folders in it may have been read already.
        """
        waiting = [folder]
        while waiting:
            place = waiting.pop()
            try:
                identity = _identity(place)
                if followed and identity in self._seen:
                    self._left_aside["read_already"].append(self._key(place))
                    continue
                self._seen.add(identity)
                with os.scandir(place) as listed:
                    entries = sorted(listed, key=lambda entry: entry.name)
            except OSError as error:
                self._cannot_list(place, error)
                continue
            for entry in entries:
                self._look_at(entry, place, waiting)

    def _look_at(self, entry: os.DirEntry[str], place: Path, waiting: list[Path]) -> None:
        path = place / entry.name
        if self._is_excluded(entry.name) or self._is_excluded(self._key(path)):
            self._left_aside["excluded"].append(self._key(path))
        elif not _is_folder(entry):
            self._look_at_file(entry, path)
        elif entry.name == INDEX_FOLDER:
            pass  # clipita's own: nobody's photographs are in it
        elif not is_users_folder(path):
            self._left_aside["hidden" if is_hidden(entry.name) else "thumbnails_and_bins"].append(self._key(path))
        elif _is_link(entry):
            self.links.append(path)
        else:
            waiting.append(path)

    def _look_at_file(self, entry: os.DirEntry[str], path: Path) -> None:
        key, suffix = self._key(path), path.suffix.lower()
        if is_hidden(entry.name):
            if suffix in self._readable:  # nobody misses other files
                self._left_aside["hidden"].append(key)
        elif suffix not in self._readable:
            reason = _reason(suffix)
            if reason == "no_pictures" and _is_link(entry) and not path.exists():
                reason = "links_to_nothing"  # perhaps a folder that is gone
                self._unseen.append(key)
            self._left_aside[reason].append(key)
        else:
            self._look_at_photo(entry, key)

    def _look_at_photo(self, entry: os.DirEntry[str], key: str) -> None:
        try:
            status = entry.stat()
            if not self._any_bytes:
                key.encode()
        except UnicodeEncodeError:
            self._failed[ascii(key)] = "has a name that is not valid UTF-8. Rename it."
        except FileNotFoundError:
            self._failed[key] = "is a link to a file that does not exist. Delete it, or bring the file back."
        except OSError as error:
            self._failed[key] = f"cannot be looked at: {error.strerror}"
        else:
            if stat.S_ISREG(status.st_mode):
                self._stamps[key] = Stamp(status.st_size, status.st_mtime_ns)
            else:  # reading a pipe could wait for ever
                self._left_aside["not_regular"].append(key)

    def _cannot_list(self, place: Path, error: Exception) -> None:
        key = self._key(place)
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        self._failed[key] = f"cannot be listed: {reason}"
        self._unseen.append(key)

    def _key(self, path: Path) -> str:
        return path.relative_to(self._folder).as_posix()


def _stem(key: str) -> str:
    """Return a path without the ending of its name."""
    return key.rpartition(".")[0]


def _matcher(patterns: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether a name or a path fits one of the patterns."""
    if not patterns:
        return lambda _: False
    fits = re.compile("|".join(fnmatch.translate(pattern.rstrip("/")) for pattern in patterns)).match
    return lambda text: fits(text) is not None


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # e.g. a link to itself
        return False


def _is_link(entry: os.DirEntry[str]) -> bool:
    """Tell whether an entry is a symbolic link or, from Python 3.12 on, a junction of Windows."""
    return entry.is_symlink() or bool(getattr(entry, "is_junction", bool)())


def _identity(folder: Path) -> tuple[int, int] | str:
    """Return a value that is the same for all paths to one folder."""
    status = folder.stat()
    # Some file systems have no such numbers, and give 0.
    return (status.st_dev, status.st_ino) if status.st_ino else os.path.realpath(folder)


def _reason(suffix: str) -> str:
    """Return why a file of this ending is not read."""
    for reason, suffixes in {"heif": _HEIF, "raw": raw.SUFFIXES, "other_formats": _OTHER_PICTURES}.items():
        if suffix in suffixes:
            return reason
    return "no_pictures"


def _suffixes(names: Iterable[str]) -> str:
    found = Counter(Path(name).suffix.lower() or phrase("without ending") for name in names)
    return _first([suffix for suffix, _ in found.most_common()])


def _first(names: Sequence[str]) -> str:
    return ", ".join([*names[:_SHOWN], *(["..."] if len(names) > _SHOWN else [])])
