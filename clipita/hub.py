"""The name of a model to a folder on this machine; a connection is opened only for what is not here yet."""

import os
import re
from pathlib import Path
from typing import Any

from clipita._strict import did_you_mean
from clipita.bundle import MANIFEST, read_manifest
from clipita.errors import CheckpointError, ModelNotFoundError

EMBEDDED = Path(__file__).parent / "models"

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
) -> Path:
    """The folder of a model.

    A str is, in this order: the name of an embedded model, a folder, a name on the hub. A hub model that is in the
    cache is used without asking whether there is a newer one; name a `revision` to get another.

    Raises:
        ModelNotFoundError: it is none of these, or may not or cannot be fetched.
        CheckpointError: the hub has it, but not as a bundle.
    """
    name = os.fspath(name_or_path)
    is_embedded = isinstance(name_or_path, str) and name in embedded_models()
    folder = EMBEDDED / name if is_embedded else Path(name).expanduser()
    if name and folder.is_dir():
        if revision is not None:
            raise ModelNotFoundError(
                f"revision {revision!r} was asked for, but {name!r} is a folder here ({str(folder)!r}), which has only "
                "one. Leave the revision out."
            )
        return folder
    if isinstance(name_or_path, str) and _HUB_NAME.fullmatch(name):
        return _from_hub(name, revision, cache_dir, local_files_only)
    raise ModelNotFoundError(_not_found(name, folder))


def embedded_models() -> list[str]:
    """The names of the models inside the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob(f"*/{MANIFEST}"))


def _not_found(name: str, folder: Path) -> str:
    if folder.is_file():
        return f"{name!r} is a file. Give the folder that it is in: {str(folder.parent)!r}."
    if "://" in name:
        return f"{name!r} is an address. Give the name alone, such as 'clip-italian/clip-italian'."
    known = embedded_models()
    return (
        f"there is no model {name!r}: no folder has this name, and of embedded models there are: "
        f"{', '.join(known) or 'none'}.{did_you_mean(name, known)} A model on the hub is called 'owner/name'."
    )


def _from_hub(name: str, revision: str | None, cache_dir: str | os.PathLike[str] | None, local_only: bool) -> Path:
    import huggingface_hub
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RemoteEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    hub: Any = huggingface_hub  # its types are partly unknown
    # Of the hub's functions the only one that surely opens no connection: others do, for their own telemetry, even
    # under local_files_only.
    manifest: object = hub.try_to_load_from_cache(name, MANIFEST, cache_dir=cache_dir, revision=revision)
    if isinstance(manifest, str):
        folder = Path(manifest).parent
        if all((folder / file).exists() for file in read_manifest(folder / MANIFEST).files):
            return folder
    if local_only:
        raise ModelNotFoundError(
            f"{_called(name, revision)} is not on this machine, and local_files_only=True forbids to fetch it. "
            "Load it once without, or copy its folder here and load that."
        )
    try:
        return _download(name, revision, cache_dir)
    except RemoteEntryNotFoundError as error:
        raise CheckpointError(
            f"{_called(name, revision)} is incomplete on the hub: its {MANIFEST} names a file that it lacks. Tell its "
            "author, or load another revision."
        ) from error
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"{_called(name, revision)} is open only to those who accepted its terms. Accept them on the hub, then: "
            "hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{name!r} has no revision {revision!r} on the hub.") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"there is no model {name!r}: neither a folder here nor, for the public, a model on the hub. "
            "Check the spelling; if it is private: hf auth login"
        ) from error
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error.__cause__ or error).splitlines()[0]
        raise ModelNotFoundError(
            f"{_called(name, revision)} is not on this machine, and the hub could not be reached ({reason}). "
            "Connect and try again, or copy its folder here and load that."
        ) from error


def _download(name: str, revision: str | None, cache_dir: str | os.PathLike[str] | None) -> Path:
    """Fetch the manifest and the files that it names, and nothing else, into the hub's cache."""
    import huggingface_hub
    from huggingface_hub.errors import RemoteEntryNotFoundError

    hub: Any = huggingface_hub
    try:
        manifest = Path(hub.hf_hub_download(name, MANIFEST, revision=revision, cache_dir=cache_dir))
    except RemoteEntryNotFoundError as error:
        raise CheckpointError(
            f"{_called(name, revision)} is on the hub, but it is no clipita bundle: it has no {MANIFEST}. Bundles are "
            "the only layout that this clipita loads; checkpoints of other layouts are not converted yet."
        ) from error
    # The branch may move between two requests, so the others are for the commit that the first one got.
    commit = manifest.parent.name
    for file in read_manifest(manifest).files:
        hub.hf_hub_download(name, file, revision=commit, cache_dir=cache_dir)
    return manifest.parent


def _called(name: str, revision: str | None) -> str:
    return repr(name) if revision is None else f"{name!r} at revision {revision!r}"
