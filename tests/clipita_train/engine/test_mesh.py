import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.engine.config import MeshConfig, ShardingRule
from clipita_train.engine.loop import fit
from clipita_train.engine.mesh import OwnRows, make_mesh, parameter_shardings, shardings_like
from clipita_train.engine.rules import parameter_paths
from clipita_train.engine.state import split_model
from flax import nnx
from support import training_devices
from support.training_toy import Towers, loss_fn, make_batches, make_config

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strict_types")]

PARAMS = {"image": {"kernel": jnp.ones((6, 8)), "bias": jnp.ones(8)}}


@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("kind", ["softmax", "sigmoid"])
def test_loss_and_gradients_equal_those_of_one_device(processes, kind):
    training_devices.run("gradients", kind, processes=processes)


@pytest.fixture(scope="module")
def one_device(tmp_path_factory):
    folder = tmp_path_factory.mktemp("one")
    model = fit(Towers(nnx.Rngs(0)), make_config(), loss_fn, make_batches, out_dir=folder, show_progress=False)
    params = split_model(model)[1]
    return losses(folder), dict(zip(parameter_paths(params), jax.tree.leaves(params), strict=True))


def losses(folder):
    lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize(("processes", "manner"), [(1, "whole"), (2, "whole"), (2, "left")])
def test_a_run_equals_that_of_one_device(one_device, processes, manner, tmp_path):
    """Two stages, checkpoints in parts from every process, the best of them read again, one metrics file.

    "left": one of the processes is told to leave; all do, at the same step, and go on from there when resumed.
    """
    training_devices.run("fit", str(tmp_path), manner, processes=processes)
    np.testing.assert_allclose(losses(tmp_path), one_device[0], rtol=1e-4)
    with np.load(tmp_path / "weights.npz") as weights:
        assert set(weights) == set(one_device[1])
        for name, values in one_device[1].items():
            np.testing.assert_allclose(weights[name], values, rtol=0, atol=1e-4)


def test_what_cannot_be_split_is_named():
    mesh = make_mesh(MeshConfig())
    for rules, message in (
        ((ShardingRule(".*", 2),), r"image/bias \(8,\): rule '\.\*' splits axis 2\n"),
        ((ShardingRule(".*kernel", 0), ShardingRule(".*bias")), r"into 4 parts:\n  image/kernel \(6, 8\): rule"),
        ((ShardingRule(".*kernel"),), "image/bias: matches no rule"),
    ):
        with pytest.raises(ValueError, match=message):
            parameter_shardings(MeshConfig(4, rules), PARAMS, mesh)
    with pytest.raises(ValueError, match="fsdp=7 does not divide the 1 devices"):
        make_mesh(MeshConfig(7))
    with pytest.raises(ValueError, match="fsdp must be >= 1"):
        MeshConfig(0)


def test_moments_go_with_their_parameters():
    mesh = make_mesh(MeshConfig())
    split = MeshConfig(1, (ShardingRule(".*kernel", 1), ShardingRule(".*bias")))
    params = jax.device_put(PARAMS, parameter_shardings(split, PARAMS, mesh))
    state = {"count": jnp.int32(0), "mu": PARAMS, "norms": {"image": {"kernel": jnp.ones(8)}}}
    whole = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    got = shardings_like(params, state, otherwise=whole)
    assert got["mu"]["image"]["kernel"].spec == jax.sharding.PartitionSpec(None, "fsdp")
    assert got["count"] == got["norms"]["image"]["kernel"] == whole


def test_rows_that_do_not_divide_by_the_processes_are_named(monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with pytest.raises(ValueError, match=r"of shape \(3, 4\) does not divide by 2 processes"):
        next(OwnRows(iter([{"x": np.zeros((3, 4))}])))
