"""Find the folder of a model by its name, and fetch from the hub only the files that are not on this machine yet."""

import os
import re
from pathlib import Path

from clipita.bundles.bundle import EMBEDDED, MANIFEST
from clipita.bundles.strict import did_you_mean
from clipita.convert.folder.names import CONFIG, ONNX_TOWERS, OPEN_CLIP_CONFIG, OPEN_CLIP_WEIGHTS, WEIGHTS
from clipita.errors import CheckpointError, ClipitaError, ModelNotFoundError
from clipita.loading.known import KNOWN
from clipita.loading.repository import IncompleteError, Repository, fetch

_HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", re.ASCII)


def resolve(
    name_or_path: str | os.PathLike[str],
    *,
    revision: str | None = None,
    cache_dir: str | os.PathLike[str] | None = None,
    local_files_only: bool = False,
    precision: str | None = None,
) -> Path:
    """Return the folder of a model: a bundle, or a checkpoint in another layout.

    A model of the hub that is in the cache is used without asking whether there is a newer one; name a `revision` to
    get another. Of a repository only the files for loading are fetched: one set of weights, however many there are, and
    of ONNX exports those of `precision`. Tokens, proxies, $HF_HOME, $HF_HUB_OFFLINE and the time-outs of
    $HF_HUB_ETAG_TIMEOUT and $HF_HUB_DOWNLOAD_TIMEOUT work as in huggingface_hub. Without a time-out of the user's, a
    hub that is silent for 5 seconds is given up.

    Args:
        name_or_path: The model. A str is tried as the name of an embedded model, a folder, and a name on the hub, in
            this order.
        revision: Branch, tag or commit on the hub.
        cache_dir: The hub's cache; None means that of huggingface_hub.
        local_files_only: Never open a connection.
        precision: Which of several ONNX exports to fetch.

    Raises:
        ModelNotFoundError: The name is none of these, or the model may not or cannot be fetched.
        CheckpointError: The hub has the model, but in no layout that is read here, incomplete, or damaged.
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
        return _from_hub(name, revision, cache_dir, local_files_only, precision)
    raise ModelNotFoundError(_not_found(name, folder))


def embedded_models() -> list[str]:
    """List the names of the models inside the package."""
    return sorted(path.parent.name for path in EMBEDDED.glob(f"*/{MANIFEST}"))


def _not_found(name: str, folder: Path) -> str:
    if folder.is_file():
        return f"{name!r} is a file. Give the folder that it is in: {str(folder.parent)!r}."
    if "://" in name:
        return f"{name!r} is an address. Give the name alone, such as 'clip-italian/clip-italian'."
    known = embedded_models()
    near = did_you_mean(name, known) or did_you_mean(name, [model.name for model in KNOWN])
    return (
        f"there is no model {name!r}: no folder has this name, and the embedded models are: "
        f"{', '.join(known) or 'none'}.{near} A model on the hub is called 'owner/name'."
    )


def _from_hub(
    name: str,
    revision: str | None,
    cache_dir: str | os.PathLike[str] | None,
    local_only: bool,
    precision: str | None,
) -> Path:
    from huggingface_hub.errors import (
        GatedRepoError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    called = repr(name) if revision is None else f"{name!r} at revision {revision!r}"

    def here() -> Path | None:
        try:
            return fetch(Repository(name, revision, cache_dir, local_only=True), precision)
        except IncompleteError:
            return None

    if local_only:
        folder = here()
        if folder is None:
            raise ModelNotFoundError(
                f"{called} is not on this machine, and local_files_only=True forbids to fetch it. "
                "Load it once without, or copy its folder here and load that."
            )
        return folder
    try:
        folder = fetch(Repository(name, revision, cache_dir, local_only=False), precision)
    except GatedRepoError as error:
        raise ModelNotFoundError(
            f"{called} is open only to those who accepted its terms. Accept them on the hub, then: hf auth login"
        ) from error
    except RevisionNotFoundError as error:
        raise ModelNotFoundError(f"{name!r} has no revision {revision!r} on the hub.") from error
    except RepositoryNotFoundError as error:
        raise ModelNotFoundError(
            f"there is no model {name!r}: neither a folder here nor a public model on the hub."
            f"{_suggestion(name)} If it is private: hf auth login"
        ) from error
    except IncompleteError as error:
        raise CheckpointError(str(error)) from None
    except ClipitaError:
        raise
    except Exception as error:  # an error of huggingface_hub, or of its HTTP library, which depends on its version
        # The files may be here already, fetched by transformers for instance; then the hub is not needed.
        folder = here()
        if folder is None:
            reason = next(iter(str(error.__cause__ or error).splitlines()), type(error).__name__)
            raise ModelNotFoundError(
                f"{called} is not on this machine, and the hub could not be reached ({reason}). "
                "Connect and try again, or copy its folder here and load that."
            ) from error
    if folder is None:
        raise CheckpointError(
            f"{called} is on the hub, but it holds nothing that clipita loads: neither a bundle ({MANIFEST}) nor a "
            f"checkpoint ({CONFIG} or {OPEN_CLIP_CONFIG} with {', '.join((*WEIGHTS, *OPEN_CLIP_WEIGHTS))}) nor ONNX "
            f"exports of this precision ({' and '.join(f'{tower}.onnx' for tower in ONNX_TOWERS)})."
        )
    return folder


def _suggestion(name: str) -> str:
    known = [model.name for model in KNOWN]
    by_short = {model.name.partition("/")[2]: model.name for model in KNOWN}
    near = did_you_mean(name, known)
    if not near:
        short = did_you_mean(name.partition("/")[2], by_short)
        near = next((f" Did you mean {by_short[known]!r}?" for known in by_short if repr(known) in short), "")
    return f"{near} Known to read Italian or to be loaded here: {', '.join(known)}."
