"""The reader of PyTorch files against PyTorch itself, and against files that mean harm."""

import io
import pickle
import zipfile
from pathlib import Path

import numpy as np
import pytest
from support.reference import torch

from clipita.convert.readers.torch_pickle import read_torch_checkpoint
from clipita.errors import CheckpointError


def tensors() -> dict[str, torch.Tensor]:
    base = torch.arange(60, dtype=torch.float32).reshape(3, 4, 5)
    return {
        "contiguous": base,
        "permuted": base.permute(2, 0, 1),
        "slice of a shared storage": base[1:, ::2],
        "expanded": torch.tensor([[1.0], [2.0]]).expand(2, 3).clone(),
        "scalar": torch.tensor(7),
        "empty": torch.zeros(0, 3),
        "half": torch.tensor([1.5, -2.0], dtype=torch.float16),
        "bfloat": torch.tensor([1.5, -2.0], dtype=torch.bfloat16),
        "bytes": torch.tensor([[1, 255]], dtype=torch.uint8).T,
        "flags": torch.tensor([True, False]),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }


@pytest.mark.parametrize("zipped", [True, False])
def test_reads_what_torch_writes(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save(tensors(), path, _use_new_zipfile_serialization=zipped)
    read = read_torch_checkpoint(path)
    assert read.keys() == tensors().keys()
    for name, tensor in tensors().items():
        expected = tensor.detach()
        assert read[name].dtype.name == str(expected.dtype).removeprefix("torch."), name
        assert read[name].shape == tuple(expected.shape), name
        assert read[name].flags.c_contiguous, name
        np.testing.assert_array_equal(read[name].astype(np.float64), expected.double().numpy(), err_msg=name)


class Harmful:
    """Writes a file where it is unpickled by anything that runs what a pickle says."""

    def __init__(self, victim: Path) -> None:
        self.victim = victim

    def __reduce__(self):
        return (Path.write_text, (self.victim, "run"))


def legacy_file(structure: object) -> bytes:
    parts = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}, structure, [])
    return b"".join(pickle.dumps(part, protocol=2) for part in parts)


def zip_file(structure: bytes, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", structure)
        for name, data in members.items():
            archive.writestr(f"archive/data/{name}", data)
    return buffer.getvalue()


def test_runs_nothing(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "weights.pth"
    harmful = {"weight": Harmful(victim)}
    builtin = b"cbuiltins\neval\n(S'1'\ntR."
    for content in (legacy_file(harmful), zip_file(pickle.dumps(harmful)), zip_file(builtin), pickle.dumps(harmful)):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match="which is no tensor"):
            read_torch_checkpoint(path)
    assert not victim.exists()


def float_view(shape: tuple[int, ...], strides: tuple[int, ...], offset: int = 0) -> bytes:
    """The structure {"x": a view of storage "0", eight floats}, written by hand."""

    class View:
        def __reduce__(self):
            return (torch._utils._rebuild_tensor_v2, (storage, offset, shape, strides, False, None))

    storage = object()

    class Pickler(pickle.Pickler):
        def persistent_id(self, obj: object):
            return ("storage", torch.FloatStorage, "0", "cpu", 8) if obj is storage else None

    buffer = io.BytesIO()
    Pickler(buffer, protocol=2).dump({"x": View()})
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("shape", "strides", "offset"),
    [((9,), (1,), 0), ((8,), (1,), 1), ((2, 2), (8, 1), 0), ((8,), (-1,), 7), ((1 << 40,), (0,), 0), ((2, 2), (1,), 0)],
)
def test_views_outside_their_storage_are_refused(tmp_path: Path, shape, strides, offset) -> None:
    path = tmp_path / "weights.bin"
    numbers = np.arange(8, dtype=np.float32).tobytes()
    path.write_bytes(zip_file(float_view((2, 3), (1, 2)), **{"0": numbers}))
    np.testing.assert_array_equal(read_torch_checkpoint(path)["x"], [[0, 2, 4], [1, 3, 5]])
    path.write_bytes(zip_file(float_view(shape, strides, offset), **{"0": numbers}))
    with pytest.raises(CheckpointError, match="a tensor"):
        read_torch_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_damaged_files_are_refused(tmp_path: Path, zipped: bool) -> None:
    path = tmp_path / "weights.pth"
    torch.save({"x": torch.ones(100)}, path, _use_new_zipfile_serialization=zipped)
    content = path.read_bytes()
    for damaged in (b"", content[:7], content[: len(content) // 3], content[:-90]):
        path.write_bytes(damaged)
        with pytest.raises(CheckpointError):
            read_torch_checkpoint(path)


def test_only_a_flat_mapping_of_tensors_is_read(tmp_path: Path) -> None:
    path = tmp_path / "weights.pth"
    for content in ([torch.ones(1)], {"epoch": 3}, {"model": {"x": torch.ones(1)}}, {1: torch.ones(1)}):
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=r"top level|not a named tensor"):
            read_torch_checkpoint(path)
    with pytest.raises(CheckpointError, match="FileNotFoundError"):
        read_torch_checkpoint(tmp_path / "absent.pth")
