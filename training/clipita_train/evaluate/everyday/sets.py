"""Read the everyday development sets, and find their photographs in clones of public repositories.

`evaluate/labels/everyday/` holds the answers, judged from the photographs before any model was asked. A photograph may
be in several sets: the archive, the sentences, or one of the small label sets.
"""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path

import numpy as np

from clipita.system.arrays import Array
from clipita_train.data.photographs.collection import clone_command
from clipita_train.evaluate.label_sets import read_columns

ARCHIVE, SENTENCES = "archive", "sentences"
SMALL = ("sports", "jobs", "desk", "kitchen")
SETS = (ARCHIVE, SENTENCES, *SMALL)


@dataclass(frozen=True)
class Photograph:
    """A photograph in a public repository.

    Attributes:
        id: Its name in the tables.
        repository: OWNER/NAME on GitHub.
        commit: The commit that has it.
        path: Its path in the repository.
        hash: Its perceptual hash.
        sets: The sets that it is in.
    """

    id: str
    repository: str
    commit: str
    path: str
    hash: int
    sets: tuple[str, ...]


@dataclass(frozen=True)
class Labeled:
    """The label that fits a photograph best of all labels of a set, and others that are not wrong."""

    set: str
    id: str
    label: str
    also: tuple[str, ...]


@dataclass(frozen=True)
class Query:
    """Holds what a person asks the archive, with the photographs that show it.

    Attributes:
        text: The query.
        relevant: The photographs that show it; none, if nothing in the archive does.
        acceptable: Photographs that show it in part, and count neither for nor against a model.
    """

    text: str
    relevant: tuple[str, ...]
    acceptable: tuple[str, ...]


@dataclass(frozen=True)
class EverydaySets:
    """All tables. `sentences` maps the name of a photograph to its sentence."""

    photographs: tuple[Photograph, ...]
    labels: tuple[Labeled, ...]
    queries: tuple[Query, ...]
    sentences: dict[str, str]


@functools.cache
def everyday_sets() -> EverydaySets:
    """Return the development sets that come with this package."""
    photographs = tuple(
        Photograph(r["id"], r["repository"], r["commit"], r["path"], int(r["hash"], 16), tuple(r["sets"].split()))
        for r in _rows("photographs.tsv")
    )
    labels = tuple(
        Labeled(r["set"], r["id"], r["label"], tuple(r["also"].split("; ")) if r["also"] else ())
        for r in _rows("labels.tsv")
    )
    queries = tuple(
        Query(r["query"], tuple(r["relevant"].split()), tuple(r["acceptable"].split())) for r in _rows("queries.tsv")
    )
    return EverydaySets(photographs, labels, queries, {r["id"]: r["sentence"] for r in _rows("sentences.tsv")})


def kept_out_repositories() -> frozenset[str]:
    """Return the repositories, as OWNER/NAME, that no training data may come from."""
    return frozenset(photograph.repository for photograph in everyday_sets().photographs)


def kept_out_hashes() -> Array:
    """Return the perceptual hashes (N,) uint64 of all photographs, so that training leaves out what is near them.

    They are those of `data.near_duplicates.perceptual_hash`, and need no clones.
    """
    return np.array([photograph.hash for photograph in everyday_sets().photographs], np.uint64)


def files(photographs: Sequence[Photograph], root: Path, without: Collection[str] = ()) -> dict[str, Path]:
    """Map the names of photographs to their files.

    Args:
        photographs: The photographs.
        root: Holds the clones, as OWNER/NAME.
        without: Repositories to leave out.

    Raises:
        FileNotFoundError: Clones are missing, or a clone lacks photographs; the message has the commands that get them.
        ValueError: `without` names a repository that no photograph is from.
    """
    if unknown := set(without) - {photograph.repository for photograph in photographs}:
        raise ValueError(f"no photographs are from {', '.join(sorted(unknown))}; expected OWNER/NAME of sources.tsv")
    wanted = [photograph for photograph in photographs if photograph.repository not in without]
    found = {photograph.id: root / photograph.repository / photograph.path for photograph in wanted}
    absent = {(p.repository, p.commit): found[p.id] for p in reversed(wanted) if not found[p.id].is_file()}
    if absent:
        commands = [clone_command(repository, root, commit) for repository, commit in sorted(absent)]
        raise FileNotFoundError(
            f"photographs of {len(absent)} repositories are missing, such as {next(iter(absent.values()))}. Get them "
            "with the commands below, or leave out a repository: --without OWNER/NAME\n" + "\n".join(commands)
        )
    return found


def _rows(name: str) -> list[dict[str, str]]:
    text = resources.files("clipita_train.evaluate").joinpath("labels", "everyday", name).read_text("utf-8")
    return list(read_columns(text, name))
