"""What the tests run in processes of their own: `python training_devices.py CHECK`, on several devices.

JAX fixes the number of devices when it starts, so a test cannot change it in its own process.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import warnings
from dataclasses import replace
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.engine.config import LossConfig, MeshConfig, ShardingRule
from clipita_train.engine.loop import fit
from clipita_train.engine.mesh import OwnRows, join_processes, make_mesh, parameter_shardings, replicated
from clipita_train.engine.rules import parameter_paths
from clipita_train.engine.state import split_model
from clipita_train.engine.step import put_batch, take_ids
from clipita_train.losses.configured import PairLoss
from clipita_train.losses.contrastive import sigmoid_contrastive, softmax_contrastive
from clipita_train.losses.distributed import per_device_softmax, sigmoid_ring
from clipita_train.pairs import run as pair_run
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from support import environment
from support.pair_toy import device_recipe
from support.training_toy import Pairs, Towers, loss_fn, make_batches, make_config

DEVICES = 8


def run(check: str, *arguments: str, processes: int = 1) -> None:
    """Runs a check on 8 virtual CPU devices, all in one process or shared by several; fails where it fails."""
    flags = f"--xla_force_host_platform_device_count={DEVICES // processes}"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = "{}:{}".format(*free.getsockname())
    commands = [
        [sys.executable, "-m", "support.training_devices", address, str(processes), str(index), check, *arguments]
        for index in range(processes)
    ]
    running = [subprocess.Popen(command, env=environment(XLA_FLAGS=flags, JAX_PLATFORMS="cpu")) for command in commands]
    try:
        assert [process.wait(timeout=300) for process in running] == [0] * processes
    finally:
        for process in running:
            process.kill()


def unit_rows(random, count, width=16):
    rows = random.normal(size=(count, width)).astype("float32")
    return rows / (rows**2).sum(1, keepdims=True) ** 0.5


def slow_softmax_pairs(image, text, scale, margin):
    """The CLIP loss of these pairs in float64, written out."""
    logits = scale * (image.astype(np.float64) @ text.astype(np.float64).T - margin * np.eye(len(image)))
    right = np.diag(logits)
    return np.mean([np.log(np.exp(rows).sum(1)) - right for rows in (logits, logits.T)])


def slow_sigmoid_pairs(image, text, scale, bias, margin):
    """The SigLIP loss of these pairs in float64, written out."""
    same = np.eye(len(image))
    logits = scale * (image.astype(np.float64) @ text.astype(np.float64).T - margin * same) + bias
    return np.log1p(np.exp(-(2 * same - 1) * logits)).sum() / len(image)


def check_losses() -> None:
    """On 8 devices in a mesh of 4 by 2: values against NumPy, gradients against the loss on one device."""
    assert jax.device_count() == DEVICES
    mesh = make_mesh(MeshConfig(fsdp=2))
    split = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
    random = np.random.default_rng(0)
    image, text = unit_rows(random, 32), unit_rows(random, 32)
    sharded = jax.device_put((image, text), split)
    numbers = {"scale": jnp.float32(20), "bias": jnp.float32(-10)}

    def compare(on_devices, on_one, value, inputs=(image, text), more=()):
        both = [
            jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2)))(*arrays, numbers, *extra)
            for loss, arrays, extra in (
                (on_devices, jax.device_put(inputs, split), jax.device_put(more, split)),
                (on_one, inputs, more),
            )
        ]
        np.testing.assert_allclose(both[0][0], value, rtol=1e-5)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), *both)

    own = range(0, 32, 4)  # the first row of each device
    compare(
        lambda i, t, n: per_device_softmax(i, t, mesh=mesh, logit_scale=n["scale"], margin=0.1) + 0 * n["bias"],
        lambda i, t, n: (
            sum(softmax_contrastive(i[k : k + 4], t[k : k + 4], logit_scale=n["scale"], margin=0.1) for k in own) / 8
            + 0 * n["bias"]
        ),
        np.mean([slow_softmax_pairs(image[k : k + 4], text[k : k + 4], 20, 0.1) for k in own]),
    )
    compare(
        lambda i, t, n: sigmoid_ring(i, t, mesh=mesh, logit_scale=n["scale"], logit_bias=n["bias"], margin=0.1),
        lambda i, t, n: sigmoid_contrastive(i, t, logit_scale=n["scale"], logit_bias=n["bias"], margin=0.1),
        slow_sigmoid_pairs(image, text, 20, -10, 0.1),
    )
    mask = np.arange(32) < 18  # four whole devices, one half, three empty
    compare(
        lambda i, t, n, m: sigmoid_ring(i, t, mesh=mesh, logit_scale=n["scale"], logit_bias=n["bias"], mask=m),
        lambda i, t, n, m: sigmoid_contrastive(
            i, t, logit_scale=n["scale"], logit_bias=n["bias"], known=m[:, None] & m[None, :]
        ),
        slow_sigmoid_pairs(image[:18], text[:18], 20, -10, 0),
        more=(mask,),
    )
    got = per_device_softmax(*sharded, mesh=mesh, logit_scale=20.0, mask=jax.device_put(mask, split))
    parts = [(min(k + 4, 18) - k, slice(k, min(k + 4, 18))) for k in own if k < 18]
    expected = sum(n * slow_softmax_pairs(image[part], text[part], 20, 0) for n, part in parts) / 18
    np.testing.assert_allclose(got, expected, rtol=1e-5)

    # One device stands for eight of 4 pairs each, and each of eight for two of 2.
    alone = Mesh(np.array(jax.devices()[:1]).reshape(1, 1), mesh.axis_names)
    for on_devices, size in ((None, 4), (2, 2)):
        compare(
            lambda i, t, n, size=on_devices: (
                per_device_softmax(i, t, mesh=mesh, logit_scale=n["scale"], device_batch=size) + 0 * n["bias"]
            ),
            lambda i, t, n, size=size: (
                per_device_softmax(i, t, mesh=alone, logit_scale=n["scale"], device_batch=size) + 0 * n["bias"]
            ),
            np.mean([slow_softmax_pairs(image[k : k + size], text[k : k + size], 20, 0) for k in range(0, 32, size)]),
        )

    # Nothing to tell apart: the logarithm of what each device, or all of them, choose from.
    same = jax.device_put(np.full((32, 4), 0.5, np.float32), split)
    np.testing.assert_allclose(per_device_softmax(same, same, mesh=mesh, logit_scale=20.0), np.log(4), rtol=1e-6)
    np.testing.assert_allclose(softmax_contrastive(same, same, logit_scale=20.0), np.log(32), rtol=1e-6)

    # Neither the whole (32, 32) matrix nor the (4, 32) rows of a device are ever there, forward or backward.
    ring = jax.jit(jax.grad(lambda i, t: sigmoid_ring(i, t, mesh=mesh, logit_scale=20.0, logit_bias=-10.0)))
    program = ring.lower(*sharded).compile().as_text()
    assert "collective-permute" in program
    assert "[4,4]" in program
    assert "[4,32]" not in program
    assert "[32,32]" not in program
    assert "all-gather" not in program


def mesh_config():
    """The toy's towers on a mesh of 4 by 2: kernels split over 'fsdp', by either axis."""

    rules = ShardingRule(".*/kernel", -1), ShardingRule("text/embedding", 0), ShardingRule(".*/bias|loss/.*")
    return MeshConfig(fsdp=2, parameters=rules)


def check_gradients(kind: str) -> None:
    """Loss and gradients on the mesh, parameters and rows split, against one device."""
    assert jax.device_count() == DEVICES
    mesh = make_mesh(mesh_config())
    batch = take_ids(next(Pairs(160, 64, train=True)))[0]

    def build(mesh):
        model = Towers(nnx.Rngs(0))
        model.loss = PairLoss(LossConfig(kind, learned=True), mesh)
        return split_model(model)

    def loss_of(graphdef, rest, params, batch):
        model = nnx.merge(graphdef, params, rest)
        return model.loss(*model(batch["pixels"], batch["words"], jax.random.key(0)))

    graphdef, params, rest = build(None)
    expected = jax.jit(jax.value_and_grad(partial(loss_of, graphdef, rest)))(params, batch)
    graphdef, params, rest = build(mesh)
    placed = jax.device_put(params, parameter_shardings(mesh_config(), params, mesh))
    kernel = placed["image"]["kernel"]
    assert kernel.addressable_shards[0].data.shape == (6, 4)  # half of (6, 8)
    assert len(kernel.addressable_shards) == jax.local_device_count()
    got = jax.jit(jax.value_and_grad(partial(loss_of, graphdef, jax.device_put(rest, replicated(mesh)))))(
        placed, put_batch(next(OwnRows(iter([batch]))), mesh)
    )
    got = jax.jit(lambda tree: tree, out_shardings=replicated(mesh))(got)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a.addressable_data(0), b, rtol=1e-5, atol=1e-5), got, expected)


class Noisy(Towers):
    """With a random stream of its own, which has to reach all devices too."""

    def __init__(self):
        super().__init__(nnx.Rngs(0))
        self.noise = nnx.Rngs(7)


class LeftByTheLast(OwnRows):
    """The last process alone is told to leave, at its fourth batch for training."""

    def __next__(self):
        if self._batches.train and self._batches.position == 3 and jax.process_index() == jax.process_count() - 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return super().__next__()


def check_fit(out_dir: str, manner: str) -> None:
    """A run of both of the toy's stages on the mesh; the first process writes the weights it ends with."""
    config = make_config(mesh=mesh_config())

    def train(own_rows, *, resume):
        return fit(Noisy(), config, loss_fn, lambda *of: own_rows(make_batches(*of)), out_dir=out_dir, resume=resume)

    if manner == "left":
        with pytest.raises(SystemExit, match="143"):
            train(LeftByTheLast, resume=False)
        step = json.loads((Path(out_dir) / "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1])["step"]
        assert step == 4
    params = split_model(train(OwnRows, resume=manner == "left"))[1]
    if jax.process_index() == 0:
        weights = dict(zip(parameter_paths(params), jax.tree.leaves(params), strict=True))
        np.savez(Path(out_dir) / "weights.npz", **weights)


def check_pairs(toy: str, out_dir: str, kind: str) -> None:
    """A run of the toy recipe for whole towers; of one process with kernels split over a mesh of 4 by 2."""
    recipe = device_recipe(Path(toy), kind)
    if jax.process_count() == 1:
        rules = ShardingRule(".*/kernel", -1), ShardingRule("(?!.*/kernel).*")
        recipe = replace(recipe, train=replace(recipe.train, mesh=MeshConfig(fsdp=2, parameters=rules)))
    pair_run.train(recipe, Path(out_dir))


if __name__ == "__main__":
    warnings.simplefilter("error")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    address, processes, index, check, *arguments = sys.argv[1:]
    if int(processes) > 1:
        join_processes(address, int(processes), int(index))
    assert jax.process_count() == int(processes)
    globals()[f"check_{check}"](*arguments)
