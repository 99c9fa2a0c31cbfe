"""Find and read the small files of a checkpoint's folder, without trust in it.

A link in the folder may lead anywhere, a file may be a pipe or of any size, and what should be JSON may be something
else.
"""

import json
from pathlib import Path
from typing import Any, cast

from clipita.bundles.bundle import check_inside
from clipita.convert.folder.names import OPEN_CLIP_WEIGHTS, WEIGHTS
from clipita.errors import CheckpointError

# The files of weights, in the order in which they are looked for. Each may also be in shards, which "<name>.index.json"
# lists.
INDEX = ".index.json"
TRANSFORMERS_FILES = tuple(name for name in WEIGHTS if not name.endswith(INDEX))
WEIGHT_FILES = (*TRANSFORMERS_FILES, *OPEN_CLIP_WEIGHTS)

# Files such as config.json have a few kilobytes.
_MAX_JSON_BYTES = 4 << 20


def file_in(folder: Path, name: str, max_bytes: int | None = None) -> Path | None:
    """Return the path of a file of `folder`, or None if it has none of this name.

    Raises:
        CheckpointError: The name or a link leads out of the folder, or the file is no plain file, or has more than
            `max_bytes`.
    """
    path = folder / name
    if not path.exists() and not path.is_symlink():
        return None
    check_inside(path, folder)
    if not path.is_file():
        raise CheckpointError(f"'{path}' is no file that can be read. Copy or download it again.")
    if max_bytes is not None and path.stat().st_size > max_bytes:
        raise CheckpointError(
            f"'{path}' has {path.stat().st_size:,} bytes, and files of its kind have at most {max_bytes:,}. "
            "Nothing of it was read; check where it comes from."
        )
    return path


def has_weights(folder: Path, *, open_clip: bool = False) -> bool:
    """Tell whether a folder holds weights under the file names of transformers, or of open_clip."""
    names = OPEN_CLIP_WEIGHTS if open_clip else TRANSFORMERS_FILES
    return any((folder / f"{name}{end}").exists() for name in names for end in ("", INDEX))


def text_in(folder: Path, name: str, max_bytes: int) -> str | None:
    """Return the UTF-8 text of a file, or None if there is none.

    Raises:
        CheckpointError: As `file_in`, or the file is no UTF-8 text.
    """
    path = file_in(folder, name, max_bytes)
    if path is None:
        return None
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise CheckpointError(f"'{path}' cannot be read as UTF-8 text: {error}. Copy or download it again.") from error


def json_in(folder: Path, name: str, max_bytes: int = _MAX_JSON_BYTES) -> dict[str, Any] | None:
    """Return the JSON object of a file, or None if there is no such file.

    Raises:
        CheckpointError: As `file_in`, or the file holds no JSON object.
    """
    text = text_in(folder, name, max_bytes)
    if text is None:
        return None
    try:
        data: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"'{folder / name}' is not valid JSON: {str(error)[:200]}. Download it again.") from error
    if not isinstance(data, dict):
        raise CheckpointError(f"'{folder / name}' must hold a JSON object, but it holds a {type(data).__name__}.")
    return cast("dict[str, Any]", data)
