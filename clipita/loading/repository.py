"""Fetch from a repository of the hub the files that a model needs, each of them whole."""

import hashlib
import json
import os
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any, cast

from clipita.bundles.bundle import MANIFEST, read_manifest
from clipita.convert.folder.names import (
    CONFIG,
    MODEL_CARD,
    MODEL_TYPES,
    MODULES,
    OLDER_TOKENIZER_FILES,
    ONNX_SUFFIXES,
    ONNX_TOWERS,
    OPEN_CLIP_CONFIG,
    OPEN_CLIP_WEIGHTS,
    OTHER_FILES,
    TOKENIZER_FILES,
    WEIGHTS,
)
from clipita.errors import CheckpointError
from clipita.loading.download import download

_MAX_JSON_BYTES = 64 << 20


class IncompleteError(CheckpointError):
    """A file names another one that is not there."""


class Repository:
    """One repository at one revision, over the cache of huggingface_hub.

    Args:
        name: "owner/name".
        revision: Branch, tag or commit; None means the main branch.
        cache_dir: As huggingface_hub takes it.
        local_only: Never open a connection.
    """

    def __init__(
        self, name: str, revision: str | None, cache_dir: str | os.PathLike[str] | None, *, local_only: bool
    ) -> None:
        self.name = name
        self.cache = _cache(cache_dir)
        self.local_only = local_only
        self._heard = False
        # All files come from one commit, even if the branch moves between two requests. A branch whose files are here
        # stays at the commit that they are of.
        self._revision = cached_commit(name, revision, cache_dir) or revision

    def get(self, file: str) -> Path | None:
        """Return the path of `file` on this machine, and fetch it if need be; None if the repository does not have it.

        Raises:
            CheckpointError: The file came damaged, or the server's headers or data look hostile.
            Exception: Any error of huggingface_hub, except for a file that is not there.
        """
        import huggingface_hub

        hub: Any = huggingface_hub  # its types are partly unknown
        # This is the only function of huggingface_hub that surely opens no connection: others do so for its telemetry,
        # even under local_files_only.
        cached: object = hub.try_to_load_from_cache(self.name, file, cache_dir=self.cache, revision=self._revision)
        if isinstance(cached, str):
            return self._pinned(Path(cached))
        if cached is not None or self.local_only:  # the cache knows that the repository does not have it
            return None
        for _ in range(2):
            path = download(self.name, file, self._revision, self.cache, heard=self._heard)
            self._heard = True
            if path is None:
                return None
            if _is_whole(path):
                return self._pinned(path)
            # A proxy or a disk has changed the file. huggingface_hub checks sizes only, and some servers state none.
            for place in (path.resolve(), _blob(path), path):
                place.unlink(missing_ok=True)
        raise CheckpointError(
            f"{file!r} of {self.name!r} came damaged twice: its hash differs. Try again later, and check the proxy in "
            "between, if there is one."
        )

    def need(self, file: str) -> Path:
        """Return the path of a file that another file names; see `get`.

        Raises:
            IncompleteError: The repository, or under `local_only` this machine, does not have it.
        """
        path = self.get(file)
        if path is None:
            raise IncompleteError(
                f"{self.name!r} is incomplete on the hub: it names a file {file!r} that it lacks. Tell its author, or "
                "load another revision."
            )
        return path

    def _pinned(self, path: Path) -> Path:
        parts = path.parts
        self._revision = parts[len(parts) - 1 - parts[::-1].index("snapshots") + 1]
        return path


def _cache(cache_dir: str | os.PathLike[str] | None) -> Path:
    from huggingface_hub import constants

    return Path(cache_dir or constants.HF_HUB_CACHE).expanduser()


def cached_commit(name: str, revision: str | None, cache_dir: str | os.PathLike[str] | None) -> str | None:
    """Return the commit of a branch or tag when it was last requested; None if it never was."""
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    folder = _cache(cache_dir) / repo_folder_name(repo_id=name, repo_type="model")
    try:
        return (folder / "refs" / (revision or constants.DEFAULT_REVISION)).read_text().strip() or None
    except (OSError, ValueError):
        return revision if revision and (folder / "snapshots" / revision).is_dir() else None


def fetch(repository: Repository, precision: str | None) -> Path | None:
    """Fetch the files that loading a model takes, and no others.

    Small files come first: if the weights are here, the other files are as well.

    Args:
        repository: The model's repository.
        precision: Which of several ONNX exports to take, by the name that `load` knows it by.

    Returns:
        The folder of the files; None if the repository has no weights.
    """
    manifest = repository.get(MANIFEST)
    if manifest is not None:
        for file in read_manifest(manifest).files:
            repository.need(file)
        return manifest.parent
    modules = repository.get(MODULES)
    if modules is not None:
        return _fetch_modules(repository, modules)
    open_clip = repository.get(OPEN_CLIP_CONFIG)
    config = repository.get(CONFIG)
    if open_clip is None and config is None:
        return None
    _fetch_small(repository, "")
    weights: Path | None = None
    if open_clip is None or (config is not None and _model_type(config) in MODEL_TYPES):
        weights = _fetch_weights(repository, WEIGHTS)
    if open_clip is not None and weights is None:
        weights = _fetch_weights(repository, OPEN_CLIP_WEIGHTS)
    weights = weights or _fetch_onnx(repository, precision or "fp32")
    return None if weights is None else cast(Path, config or open_clip).parent


def _fetch_modules(repository: Repository, modules: Path) -> Path | None:
    found = False
    repository.get(MODEL_CARD)
    for folder in module_folders(modules):
        prefix = f"{folder}/" if folder else ""
        repository.get(prefix + CONFIG)
        if folder.endswith(("Pooling", "Normalize")):  # modules without weights
            continue
        _fetch_small(repository, prefix)
        found |= _fetch_weights(repository, [prefix + name for name in WEIGHTS]) is not None
    return modules.parent if found else None


def module_folders(modules: Path) -> list[str]:
    """List the folders that a `modules.json` of sentence-transformers names, with "" for its own folder.

    Raises:
        CheckpointError: The file is no such list, or names a folder outside its own.
    """
    entries = _json(modules)
    folders: list[str] = []
    for entry in cast("list[Any]", entries) if isinstance(entries, list) else [None]:
        path: object = cast("dict[str, Any]", entry).get("path") if isinstance(entry, dict) else None
        if not isinstance(path, str) or not _is_below(path):
            raise CheckpointError(
                f"{str(modules)!r} must list folders below its own, but it has {str(cast(object, entry))[:80]!r}."
            )
        folders.append(path)
    return folders


def _fetch_small(repository: Repository, prefix: str) -> None:
    if not prefix:
        repository.get(MODEL_CARD)
    fetched = {name: repository.get(prefix + name) for name in (*TOKENIZER_FILES, *OTHER_FILES)}
    if fetched["tokenizer.json"] is None:
        for name in OLDER_TOKENIZER_FILES:
            repository.get(prefix + name)


def _fetch_weights(repository: Repository, names: Sequence[str]) -> Path | None:
    for name in names:
        path = repository.get(name)
        if path is None:
            continue
        if name.endswith(".index.json"):
            for shard in _shards(path):
                repository.need(str(PurePosixPath(name).parent / shard))
        return path
    return None


def _fetch_onnx(repository: Repository, precision: str) -> Path | None:
    for suffix in ONNX_SUFFIXES.get(precision, (f"_{precision}",)):
        towers = [repository.get(f"{tower}{suffix}.onnx") for tower in ONNX_TOWERS]
        if all(towers):
            for tower in ONNX_TOWERS:
                repository.get(f"{tower}{suffix}.onnx_data")  # weights above 2 GB are in a second file
            return towers[0]
    return None


def _model_type(config: Path) -> object:
    content = _json(config)
    return cast("dict[str, Any]", content).get("model_type") if isinstance(content, dict) else None


def _shards(index: Path) -> list[str]:
    content = _json(index)
    weight_map: object = cast("dict[str, Any]", content).get("weight_map") if isinstance(content, dict) else None
    names = set(cast("dict[str, object]", weight_map).values()) if isinstance(weight_map, dict) else {None}
    shards = sorted(name for name in names if isinstance(name, str) and _is_below(name))
    if len(shards) != len(names):
        raise CheckpointError(f"{str(index)!r} is no index of shards: its 'weight_map' must give a file for each name.")
    return shards


def _is_below(path: str) -> bool:
    """Tell whether a relative path stays below its folder."""
    return (
        not any(character in path for character in "\\:\0")
        and not ({"..", "."} & {*path.split("/")})
        and path[:1] != "/"
    )


def _json(path: Path) -> object:
    if path.stat().st_size > _MAX_JSON_BYTES:
        raise CheckpointError(f"{str(path)!r} has {path.stat().st_size:,} bytes, which no list of names needs.")
    try:
        return json.loads(path.read_bytes())
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{str(path)!r} is not valid JSON: {error}. Fetch it again.") from error


def _is_whole(path: Path) -> bool:
    """Compare a file of the hub's cache with the hash in its blob's name: SHA-256 for large files, else git's SHA-1.

    On systems without links the blob has no such name, and the file counts as whole.
    """
    blob = _blob(path)
    expected = blob.name
    if blob == path or not set(expected) <= set("0123456789abcdef") or len(expected) not in (40, 64):
        return True
    digest = hashlib.sha256() if len(expected) == 64 else hashlib.sha1(usedforsecurity=False)
    if len(expected) == 40:
        digest.update(b"blob %d\0" % blob.stat().st_size)
    with blob.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest() == expected


def _blob(path: Path) -> Path:
    """Return blobs/<hash>, which a file of a snapshot links to. That may itself be a link to another name."""
    return path.parent / path.readlink() if path.is_symlink() else path
