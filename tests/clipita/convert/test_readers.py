"""Weights of a folder in each of the three formats, against the libraries that write them."""

import json
from pathlib import Path

import flax.serialization
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file
from support.reference import torch

from clipita.convert.folder.files import WEIGHT_FILES
from clipita.convert.readers.flax_msgpack import read_flax_msgpack
from clipita.convert.readers.safe_tensors import read_safetensors
from clipita.convert.readers.weights import read_weights
from clipita.errors import CheckpointError
from clipita.system.arrays import Array


def arrays() -> dict[str, Array]:
    random = np.random.default_rng(0)
    numbers = random.normal(size=(3, 4, 5)).astype(np.float32)
    return {
        "text.weight": numbers,
        "text.half": numbers.astype(np.float16),
        "text.brain": numbers.astype(ml_dtypes.bfloat16),
        "text.double": numbers.astype(np.float64),
        "ids": np.arange(77, dtype=np.int64).reshape(1, 77),
        "scale": np.array(4.6, np.float32),
        "empty": np.zeros((0, 3), np.float32),
        "flags": np.array([True, False]),
        "bytes": np.array([[1, 255]], np.uint8),
    }


def assert_same(read, expected: dict[str, Array]) -> None:
    assert read.keys() == expected.keys()
    for name, array in expected.items():
        assert read[name].dtype == array.dtype, name
        assert read[name].shape == array.shape, name
        np.testing.assert_array_equal(read[name], array, err_msg=name)


def test_safetensors(tmp_path: Path) -> None:
    save_file(arrays(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    assert_same(read_weights(tmp_path), arrays())


def test_flax_msgpack(tmp_path: Path) -> None:
    tree = {"text": {"inner": {}}}
    for name, array in arrays().items():
        (tree["text"]["inner"] if name.startswith("text.") else tree)[name.removeprefix("text.")] = array
    (tmp_path / "flax_model.msgpack").write_bytes(flax.serialization.to_bytes(tree))
    expected = {name.replace("text.", "text/inner/"): array for name, array in arrays().items()}
    assert_same(read_weights(tmp_path), expected)


def test_flax_msgpack_in_chunks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Flax cuts arrays of more than 2**30 bytes; the same code cuts at 100.
    monkeypatch.setattr(flax.serialization, "MAX_CHUNK_SIZE", 100)
    big = {name: array for name, array in arrays().items() if array.size}
    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(flax.serialization.msgpack_serialize({"params": dict(big)}))
    assert b"__msgpack_chunked_array__" in path.read_bytes()
    assert_same(read_flax_msgpack(path), {f"params/{name}": array for name, array in big.items()})


def test_a_scalar_and_a_jax_array(tmp_path: Path) -> None:
    import jax.numpy as jnp

    path = tmp_path / "flax_model.msgpack"
    path.write_bytes(flax.serialization.to_bytes({"scalar": np.float32(2.5), "jax": jnp.ones((2,), jnp.bfloat16)}))
    expected = {"scalar": np.array(2.5, np.float32), "jax": np.ones((2,), ml_dtypes.bfloat16)}
    assert_same(read_flax_msgpack(path), expected)


@pytest.mark.parametrize("name", WEIGHT_FILES)
@pytest.mark.parametrize("sharded", [False, True])
def test_each_set_of_files_is_found(tmp_path: Path, name: str, sharded: bool) -> None:
    def write(path: Path, part: dict[str, Array]) -> None:
        if path.suffix == ".safetensors":
            save_file(part, path)
        elif path.suffix == ".bin":
            torch.save({key: torch.from_numpy(array) for key, array in part.items()}, path)
        else:
            path.write_bytes(flax.serialization.to_bytes(part))

    halves = [{"a": np.ones(3, np.float32)}, {"b": np.zeros((2, 2), np.int64)}]
    if sharded:
        stem, suffix = name.rsplit(".", 1)
        shards = [f"{stem}-0000{i}-of-00002.{suffix}" for i in (1, 2)]
        weight_map = {key: shard for shard, part in zip(shards, halves, strict=True) for key in part}
        (tmp_path / f"{name}.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        for shard, part in zip(shards, halves, strict=True):
            write(tmp_path / shard, part)
    else:
        write(tmp_path / name, halves[0] | halves[1])
    assert_same(read_weights(tmp_path), halves[0] | halves[1])


def test_safetensors_come_first_and_open_clip_has_its_own(tmp_path: Path) -> None:
    save_file({"theirs": np.ones(1)}, tmp_path / "open_clip_model.safetensors")
    assert list(read_weights(tmp_path)) == ["theirs"]
    torch.save({"bin": torch.ones(1)}, tmp_path / "pytorch_model.bin")
    assert list(read_weights(tmp_path)) == ["bin"]
    save_file({"safe": np.ones(1)}, tmp_path / "model.safetensors")
    assert list(read_weights(tmp_path)) == ["safe"]
    assert list(read_weights(tmp_path, open_clip=True)) == ["theirs"]


def test_a_folder_without_weights_says_what_was_looked_for(tmp_path: Path) -> None:
    with pytest.raises(
        CheckpointError, match=r"model\.safetensors.*pytorch_model\.bin.*flax_model\.msgpack.*open_clip"
    ):
        read_weights(tmp_path)


def test_arrays_are_views_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    save_file({"x": np.ones(1000, np.float32)}, path)
    array = read_safetensors(path)["x"]
    assert not array.flags.owndata
    assert not array.flags.writeable
