"""Files that mean harm are refused, each with a CheckpointError that says why, before memory or disk suffers."""

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file
from support import environment
from support.hostile import MAX_GROWTH_MIB, MAX_SECONDS, Outcome, all_cases

from clipita.convert.graph.external_data import external_data_inside
from clipita.convert.readers.weights import read_weights

# What lies outside the checkpoint by the cases' own making.
OWN = {"secret", "outside.safetensors"}


@pytest.fixture(scope="module")
def outcomes() -> dict[str, Outcome]:
    command = [sys.executable, "-m", "support.hostile", "--json"]
    run = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    return {name: Outcome(**outcome) for name, outcome in json.loads(run.stdout).items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", all_cases())
def test_a_hostile_file_is_refused(outcomes: dict[str, Outcome], name: str) -> None:
    outcome, message = outcomes[name], all_cases()[name].message
    if message == "^$":  # harmless once read: what it asks for is not done
        assert outcome.raised == "none", outcome
    else:
        assert outcome.raised == "CheckpointError", outcome
        assert re.search(message, outcome.text), outcome
    assert "MemoryError" not in outcome.text
    assert outcome.growth_mib <= MAX_GROWTH_MIB, outcome
    assert outcome.seconds <= MAX_SECONDS, outcome
    assert set(outcome.left_behind) <= OWN, outcome  # nothing was run: no "victim"


def test_the_hubs_cache_is_read(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "0123"
    blobs = tmp_path / "models--a--b" / "blobs"
    (snapshot / "onnx").mkdir(parents=True)
    blobs.mkdir()
    save_file({"x": np.ones(2, np.float32)}, blobs / "abc")
    (snapshot / "model.safetensors").symlink_to("../../blobs/abc")
    assert list(read_weights(snapshot)) == ["x"]
    (snapshot / "onnx" / "model.safetensors").symlink_to("../../../blobs/abc")
    assert list(read_weights(snapshot / "onnx")) == ["x"]


def test_external_data_inside_the_folder(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((4, 4), np.float32), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 4])],
        [weight],
    )
    path = tmp_path / "onnx" / "model.onnx"
    path.parent.mkdir()
    onnx.save(helper.make_model(graph), path)
    assert external_data_inside(path, tmp_path) == []
    options = {"save_as_external_data": True, "location": "model.onnx_data", "size_threshold": 0}
    onnx.save(helper.make_model(graph), path, **options)
    assert external_data_inside(path, tmp_path) == [path.parent / "model.onnx_data"]
