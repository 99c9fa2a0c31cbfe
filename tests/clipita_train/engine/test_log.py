import builtins
import struct
from pathlib import Path
from typing import Any

import pytest
from clipita_train.engine.log import MetricsFile
from support.reference import tensorboardX  # noqa: F401 - skips the file where it is missing


def events(folder: Path) -> list[Any]:
    """What TensorBoard reads: records of a length, a checksum, an event, a checksum, in the order of the files."""
    from tensorboardX.proto.event_pb2 import Event

    found = []
    for path in sorted(folder.glob("events.*")):
        data, place = path.read_bytes(), 0
        while place < len(data):
            (size,) = struct.unpack_from("<Q", data, place)
            found.append(Event.FromString(data[place + 12 : place + 12 + size]))
            place += size + 16
    return found


def scalars(folder: Path) -> list[tuple[int, str, float]]:
    return [(e.step, value.tag, value.simple_value) for e in events(folder) for value in e.summary.value]


def test_tensorboard_gets_the_same_numbers_a_run_for_each_stage(tmp_path):
    board = tmp_path / "tensorboard"
    with MetricsFile(tmp_path / "metrics.jsonl", keep_until=(0, -1), board=board) as metrics:
        metrics.write(stage=0, step=10, split="train", loss=2.5, cosine=0.5)
        metrics.write(stage=0, step=10, split="validation", rows=50, loss=3.0)
        metrics.write(stage=1, step=10, split="train", loss=1.5)
    assert scalars(board / "0") == [
        (10, "train/loss", 2.5),
        (10, "train/cosine", 0.5),
        (10, "validation/rows", 50.0),
        (10, "validation/loss", 3.0),
    ]
    assert scalars(board / "1") == [(10, "train/loss", 1.5)]


def test_a_resumed_run_takes_the_place_of_what_came_after_its_checkpoint(tmp_path):
    with MetricsFile(tmp_path / "metrics.jsonl", keep_until=(1, 20), board=tmp_path) as metrics:
        metrics.write(stage=1, step=30, split="train", loss=1.5)
    (start,) = [e for e in events(tmp_path / "1") if e.HasField("session_log")]
    assert start.step == 21


def test_without_its_writer_the_error_says_what_to_install(tmp_path, monkeypatch):
    found = builtins.__import__

    def without(name, *more):
        if name == "tensorboardX":
            raise ModuleNotFoundError(name)
        return found(name, *more)

    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(ModuleNotFoundError, match=r"pip install 'clipita\[tensorboard\]'"):
        MetricsFile(tmp_path / "metrics.jsonl", keep_until=(0, -1), board=tmp_path)
