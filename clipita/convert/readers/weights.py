"""Read the weights of a checkpoint's folder, in any of three file formats, as arrays by their stored names."""

from collections.abc import Callable, Mapping
from pathlib import Path

from clipita.convert.folder.files import INDEX, TRANSFORMERS_FILES, file_in, json_in
from clipita.convert.folder.names import OPEN_CLIP_WEIGHTS
from clipita.convert.readers.flax_msgpack import read_flax_msgpack
from clipita.convert.readers.safe_tensors import read_safetensors
from clipita.convert.readers.torch_pickle import read_torch_checkpoint
from clipita.errors import CheckpointError
from clipita.system.arrays import Array

_Reader = Callable[[Path], dict[str, Array]]

_TRANSFORMERS: dict[str, _Reader] = dict(
    zip(TRANSFORMERS_FILES, (read_safetensors, read_torch_checkpoint, read_flax_msgpack), strict=True)
)
_OPEN_CLIP: dict[str, _Reader] = dict(zip(OPEN_CLIP_WEIGHTS, (read_safetensors, read_torch_checkpoint), strict=True))
_MAX_INDEX_BYTES = 16 << 20


def read_weights(folder: Path, *, open_clip: bool = False) -> Mapping[str, Array]:
    """Read the arrays of a folder, by the names they are stored under (Flax's nested names joined with "/").

    Args:
        folder: The folder. If it holds more than one set of files, the first of `WEIGHT_FILES` is read.
        open_clip: Read open_clip's own files, even if the folder also holds the same model in transformers' layout.

    Returns:
        Read-only arrays of their stored dtype, bfloat16 as that of ml_dtypes; views of the files where these allow it.

    Raises:
        CheckpointError: There are no weights, a file is damaged or means harm, or a shard is missing.
    """
    known = _OPEN_CLIP if open_clip else _TRANSFORMERS | _OPEN_CLIP
    for name, read in known.items():
        if (path := file_in(folder, name)) is not None:
            return read(path)
        if (index := json_in(folder, name + INDEX, _MAX_INDEX_BYTES)) is not None:
            return _read_shards(folder, name + INDEX, index.get("weight_map"), read)
    raise CheckpointError(
        f"'{folder}' holds no weights: it has none of {', '.join(known)}, nor one of these in shards "
        f"({next(iter(known))}{INDEX}). Download the whole repository, or name the folder that holds them."
    )


def _read_shards(folder: Path, index: str, weight_map: object, read: _Reader) -> dict[str, Array]:
    where = f"'{folder / index}'"
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{where} has no 'weight_map' from names to shards. Download it again.")
    expected: dict[str, set[str]] = {}
    for name, shard in weight_map.items():  # pyright: ignore[reportUnknownVariableType]
        if (
            not isinstance(shard, str)
            or Path(shard).name != shard
            or not shard.endswith(Path(index.removesuffix(INDEX)).suffix)
        ):
            raise CheckpointError(
                f"{where} puts {str(name)[:80]!r} into {str(shard)[:80]!r}, which is no shard in the folder itself."  # pyright: ignore[reportUnknownArgumentType]
            )
        expected.setdefault(shard, set()).add(str(name))  # pyright: ignore[reportUnknownArgumentType]
    arrays: dict[str, Array] = {}
    for shard, names in expected.items():
        path = file_in(folder, shard)
        if path is None:
            raise CheckpointError(
                f"{where} lists the shard '{shard}', which is not there. Download the whole repository."
            )
        tensors = read(path)
        if tensors.keys() != names:
            raise CheckpointError(
                f"'{path}' and {where} differ: the shard lacks {sorted(names - tensors.keys())[:5]} and has "
                f"{sorted(tensors.keys() - names)[:5]} besides. Download both again."
            )
        arrays |= tensors
    return arrays
