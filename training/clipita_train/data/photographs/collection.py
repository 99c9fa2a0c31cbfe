"""A collection of photographs: where to get it, its license, and how it is read.

Every collection is a public Git repository that the user clones to ROOT/<owner>/<name>.
"""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from clipita_train.data.photographs.example import Example
from clipita_train.data.photographs.readers import CollectionItem, folders


@dataclass(frozen=True)
class Collection:
    """A collection of photographs: where to get it, its license, and the function that reads its folder."""

    name: str
    repository: str  # owner/name on GitHub
    licence: str
    read: Callable[[Path], Iterable[CollectionItem]]
    commit: str | None = None  # set where the newest commit no longer has the photographs
    further: tuple[str, ...] = ()  # other repositories that the reader needs

    def examples(self, root: Path) -> Iterator[Example]:
        """Yield the examples of the collection.

        Args:
            root: The folder of all clones.

        Raises:
            FileNotFoundError: The clone, or a folder in it, is missing; the message says what to clone.
        """
        for folder in (root / repository for repository in (self.repository, *self.further)):
            if not folder.is_dir():
                raise FileNotFoundError(
                    f"source {self.name!r} is missing at {folder}. Get it with: {self.clone_command(root)}; "
                    f"or leave it out: --without {self.name}"
                )
        for found in self.read(root / self.repository):
            path = found.path.relative_to(root).as_posix()
            yield Example(path, self.name, found.split, found.concept, found.captions, found.judged_as)

    def clone_command(self, root: Path) -> str:
        """Return the shell command that clones the collection."""
        others = (clone_command(name, root) for name in self.further)
        return " && ".join([clone_command(self.repository, root, self.commit), *others])


def clone_command(repository: str, root: Path, commit: str | None = None) -> str:
    """Return the shell command that clones a repository to ROOT/<owner>/<name>.

    Args:
        repository: OWNER/NAME on GitHub.
        root: The folder of all clones.
        commit: The commit to check out; None takes the newest.
    """
    command = f"git clone https://github.com/{repository} {root / repository}"
    return command if commit is None else f"{command} && git -C {root / repository} checkout {commit}"


def in_folders(
    name: str, repository: str, licence: str, *, train: int, dev: int = 0, commit: str | None = None
) -> Collection:
    """Make a collection of which `labels/folders.tsv` says where the photographs of each concept are.

    Args:
        name: Name of the collection, also in the table.
        repository: OWNER/NAME on GitHub.
        licence: License of the photographs.
        train: Maximum number of training photographs of a concept.
        dev: Maximum number of development photographs of a concept.
        commit: The commit to check out; None takes the newest.
    """
    return Collection(name, repository, licence, folders(name, train=train, dev=dev), commit)
