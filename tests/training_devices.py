"""What the tests run in processes of their own: `python training_devices.py CHECK`, on several devices.

JAX fixes the number of devices when it starts, so a test cannot change it in its own process.
"""

import os
import subprocess
import sys
import warnings
from pathlib import Path

DEVICES = 8


def run(check: str, *arguments: str, file: str = __file__) -> None:
    """Runs one check of a file like this one on 8 virtual CPU devices; fails where it fails."""
    flags = f"--xla_force_host_platform_device_count={DEVICES}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[1]
    environment["PYTHONPATH"] = os.pathsep.join([str(root), os.environ.get("PYTHONPATH", "")])
    subprocess.run([sys.executable, file, check, *arguments], env=environment, check=True, timeout=120)


def unit_rows(random, count, width=16):
    rows = random.normal(size=(count, width)).astype("float32")
    return rows / (rows**2).sum(1, keepdims=True) ** 0.5


def slow_softmax_pairs(image, text, scale, margin):
    """The CLIP loss of these pairs in float64, written out."""
    import numpy as np

    logits = scale * (image.astype(np.float64) @ text.astype(np.float64).T - margin * np.eye(len(image)))
    right = np.diag(logits)
    return np.mean([np.log(np.exp(rows).sum(1)) - right for rows in (logits, logits.T)])


def slow_sigmoid_pairs(image, text, scale, bias, margin):
    """The SigLIP loss of these pairs in float64, written out."""
    import numpy as np

    same = np.eye(len(image))
    logits = scale * (image.astype(np.float64) @ text.astype(np.float64).T - margin * same) + bias
    return np.log1p(np.exp(-(2 * same - 1) * logits)).sum() / len(image)


def check_losses() -> None:
    """On 8 devices in a mesh of 4 by 2: values against NumPy, gradients against the loss on one device."""
    import jax
    import jax.numpy as jnp
    import numpy as np
    from jax.sharding import AxisType, NamedSharding, PartitionSpec

    from training.device_losses import per_device_softmax, sigmoid_ring
    from training.losses import sigmoid_contrastive, softmax_contrastive

    assert jax.device_count() == DEVICES
    mesh = jax.make_mesh((4, 2), ("data", "fsdp"), axis_types=(AxisType.Auto,) * 2)
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


if __name__ == "__main__":
    import jax

    warnings.simplefilter("error")
    jax.config.update("jax_numpy_dtype_promotion", "strict")
    jax.config.update("jax_numpy_rank_promotion", "raise")
    globals()[f"check_{sys.argv[1]}"](*sys.argv[2:])
