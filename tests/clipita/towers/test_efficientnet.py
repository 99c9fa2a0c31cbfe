"""Padding and depthwise convolution of the image tower, and which of its parts are trained."""

import jax
import numpy as np
import pytest
from flax import nnx
from support.tiny import random_table

from clipita.errors import CheckpointError
from clipita.towers.efficientnet import EfficientNetLite, depthwise_conv
from clipita.towers.efficientnet_config import LITE0, LITE1, LITE2, EfficientNetLiteConfig, block_shapes, same_padding
from clipita.towers.parameters import parameter_table, set_parameters

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strict_types")]

TINY = EfficientNetLiteConfig(width=0.25, depth=0.1, stem_width=8, head_width=32)


@pytest.mark.parametrize(
    ("size", "kernel", "stride", "expected"),
    [
        (224, 3, 2, (0, 1)),
        (56, 5, 2, (1, 2)),
        (65, 3, 2, (1, 1)),
        (33, 5, 2, (2, 2)),
        (14, 5, 1, (2, 2)),
        (9, 1, 2, (0, 0)),
    ],
)
def test_padding_follows_tensorflow(size: int, kernel: int, stride: int, expected: tuple[int, int]) -> None:
    assert same_padding(size, kernel, stride) == expected


def test_block_counts_and_widths() -> None:
    assert [len(block_shapes(config)) for config in (LITE0, LITE1, LITE2)] == [16, 21, 21]
    assert [shape.outputs for shape in block_shapes(LITE2)][::5] == [16, 48, 88, 208, 352]


@pytest.mark.parametrize(("size", "kernel", "stride"), [(8, 3, 1), (8, 3, 2), (9, 5, 2), (7, 5, 1), (8, 5, 2)])
def test_depthwise_conv_and_its_gradients(size: int, kernel: int, stride: int) -> None:
    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(keys[0], (3, size, size, 4))
    weights = jax.random.normal(keys[1], (kernel, kernel, 4))

    def reference(x: jax.Array, weights: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, weights[:, :, None], (stride, stride), "SAME",
            feature_group_count=4, dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )  # fmt: skip

    expected, expected_vjp = jax.vjp(reference, x, weights)
    result, vjp = jax.vjp(lambda x, weights: depthwise_conv(x, weights, stride), x, weights)
    np.testing.assert_allclose(result, expected, atol=1e-5)
    gradient = jax.random.normal(keys[2], expected.shape)
    for ours, theirs in zip(vjp(gradient), expected_vjp(gradient), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4)


def tiny_tower(folded: bool) -> EfficientNetLite:
    tower = nnx.eval_shape(lambda: EfficientNetLite(TINY, folded=folded, rngs=nnx.Rngs(0)))
    set_parameters(tower, random_table(tower))
    return tower


def test_gradients_reach_every_weight_and_no_statistic() -> None:
    graph, weights, statistics = nnx.split(tiny_tower(folded=False), nnx.Param, nnx.BatchStat)
    pixels = jax.random.normal(jax.random.key(1), (2, 32, 32, 3))

    def loss(weights, statistics, pixels):
        return (nnx.merge(graph, weights, statistics)(pixels) ** 2).sum()

    quick_to_compile = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
    gradients = jax.jit(jax.grad(loss), compiler_options=quick_to_compile)(weights, statistics, pixels)
    flat = {".".join(map(str, path)): variable[...] for path, variable in nnx.to_flat_state(gradients)}
    assert flat.keys() == {
        name for name in parameter_table(tiny_tower(folded=False)) if not name.endswith((".mean", ".variance"))
    }
    assert [name for name, gradient in flat.items() if not np.abs(gradient).max() > 0] == []


def test_setting_parameters_is_strict() -> None:
    tower = tiny_tower(folded=True)
    table = parameter_table(tower)
    with pytest.raises(CheckpointError, match=r"missing \['stem.bias'\], unknown \['stem.extra'\]"):
        set_parameters(tower, {name.replace("stem.bias", "stem.extra"): value for name, value in table.items()})
    with pytest.raises(CheckpointError, match=r"'head.bias' has shape \(3,\), expected \(32,\)"):
        set_parameters(tower, table | {"head.bias": np.zeros(3, np.float32)})
