"""Storage of weights in few bits."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from clipita.convert.weights.quantize import dequantize, plan, quantize
from clipita.errors import CheckpointError

finite = st.floats(-100, 100, width=32)


@given(arrays(np.float32, (64, 3), elements=finite))
def test_int4_is_within_half_a_step_or_one_at_the_far_end(kernel: np.ndarray) -> None:
    stored = quantize({"x.kernel": kernel}, {"x.*": "int4"})
    restored = dequantize(stored)["x.kernel"]
    steps = np.abs(stored["x.kernel.scale"].astype(np.float32)).T.repeat(32, axis=0)  # (64, 3)
    # Codes are -8..7, so a value opposite to the block's extreme may be cut from 8 steps to 7.
    assert (np.abs(restored - kernel) <= steps * 1.01 + 1e-4).all()
    again = quantize({"x.kernel": restored}, {"x.*": "int4"})
    np.testing.assert_array_equal(dequantize(again)["x.kernel"], restored)


@given(arrays(np.float32, (24, 4), elements=finite))
def test_int8_is_within_half_a_step(kernel: np.ndarray) -> None:
    stored = quantize({"x.kernel": kernel}, {"x.*": "int8"})
    assert stored["x.kernel.scale"].shape == (1, 4)
    steps = stored["x.kernel.scale"].astype(np.float32)
    # float16 scales are off by up to 2**-11, which is 0.06 steps at the ends, and cannot be arbitrarily small.
    assert (np.abs(dequantize(stored)["x.kernel"] - kernel) <= steps * 0.57 + 1e-5).all()


@given(arrays(np.float32, (4, 3, 3, 3), elements=finite))
def test_int8_keeps_the_sums_of_convolutions_and_is_within_a_step(kernel: np.ndarray) -> None:
    stored = quantize({"x.kernel": kernel}, {"x.*": "int8"})
    assert stored["x.kernel.scale"].shape == (4, 1, 1, 1)
    steps = stored["x.kernel.scale"].astype(np.float32)
    lost = dequantize(stored)["x.kernel"] - kernel
    assert (np.abs(lost) <= steps * 1.07 + 1e-5).all()
    # The sum is off by half a step, as one weight would be; by more only where weights stand at the end of the scale.
    inside = (np.abs(stored["x.kernel"]) < 127).all(axis=(2, 3))
    assert (np.abs(lost.sum(axis=(2, 3))) <= steps[..., 0, 0] * 0.51 + 1e-3)[inside].all()


def test_the_scale_of_a_convolution_never_vanishes() -> None:
    stored = quantize({"x.kernel": np.full((2, 1, 3, 3), 1e-9, np.float32)}, {"x.*": "int8"})
    assert (stored["x.kernel.scale"] == np.float16(2.0**-14)).all()
    assert (stored["x.kernel"] == 0).all()


def test_the_axes_of_scales() -> None:
    matrix = np.outer(np.ones(64), [1, 10, 100]).astype(np.float32)  # three outputs
    stored = quantize({"a.kernel": matrix, "b.embedding": matrix.T.copy()}, {"*": "int8"})
    assert stored["a.kernel.scale"].shape == (1, 3)
    assert stored["b.embedding.scale"].shape == (3, 1)
    restored = dequantize(stored)
    np.testing.assert_allclose(restored["a.kernel"], matrix, rtol=1e-3)
    np.testing.assert_allclose(restored["b.embedding"], matrix.T, rtol=1e-3)


def test_the_last_pattern_decides_and_small_leaves_stay() -> None:
    table = {name: np.ones((32, 32), np.float32) for name in ("a.b.kernel", "a.c.kernel")} | {"a.bias": np.ones(32)}
    stored = quantize(table, {"a.*": "int8", "a.c.*": "int4"})
    assert {name: values.dtype.name for name, values in stored.items()} == {
        "a.b.kernel": "int8",
        "a.b.kernel.scale": "float16",
        "a.c.kernel.int4": "uint8",
        "a.c.kernel.scale": "float16",
        "a.bias": "float32",
    }


@pytest.mark.parametrize("format", ["float32", "float16", "int8", "int4"])
def test_strides_do_not_matter(format) -> None:
    kernel = np.random.default_rng(0).normal(size=(64, 32)).astype(np.float32)
    a, b = (quantize({"x.kernel": values}, {"*": format}) for values in (kernel, np.asfortranarray(kernel)))
    assert all(values.flags.c_contiguous for values in b.values())
    assert all((values == b[name]).all() for name, values in a.items())


def test_what_cannot_be_stored_or_read_is_refused() -> None:
    with pytest.raises(ValueError, match="is for matrices"):
        quantize({"x.kernel": np.ones((4, 3, 2, 2), np.float32)}, {"x.*": "int4"})
    with pytest.raises(ValueError, match="no multiple of 32"):
        quantize({"x.kernel": np.ones((33, 2), np.float32)}, {"x.*": "int4"})
    with pytest.raises(CheckpointError, match=r"has no 'x\.scale'"):
        dequantize({"x": np.ones((2, 2), np.int8)})
    with pytest.raises(CheckpointError, match="stored as int64"):
        dequantize({"x": np.ones(2, np.int64)})


def test_int7_is_for_matrices_and_within_half_a_step() -> None:
    random = np.random.default_rng(0)
    table = {
        "a.kernel": random.standard_normal((48, 24), dtype=np.float32),
        "a.bias": random.standard_normal(24, dtype=np.float32),
        "patch.kernel": random.standard_normal((24, 3, 8, 8), dtype=np.float32),
        "word.embedding": random.standard_normal((9, 24), dtype=np.float32),
        "norm.scale": random.standard_normal(24, dtype=np.float32),
    }
    table["a.kernel"][:, 3] = 0
    stored = quantize(table, {"*": "int7"})
    assert stored["a.kernel.int7"].dtype == np.int8
    assert np.abs(stored["a.kernel.int7"]).max() == 63
    found = dequantize(stored)
    assert found.keys() == table.keys()
    step = np.abs(table["a.kernel"]).max(axis=0) / 63
    assert (np.abs(found["a.kernel"] - table["a.kernel"]) <= step / 2 + 1e-7).all()
    for name in table.keys() - {"a.kernel"}:
        np.testing.assert_array_equal(found[name], table[name])


def test_factors_of_inputs_are_part_of_int7_and_of_nothing_else() -> None:
    random = np.random.default_rng(0)
    table = {name: random.standard_normal((48, 24), dtype=np.float32) for name in ("a.kernel", "b.kernel")}
    factors = {name: np.exp(random.standard_normal(48)).astype(np.float32) for name in table}
    stored = {name: part.array() for name, part in plan(table, {"a.*": "int7"}, factors).items()}
    assert stored.keys() == {"a.kernel.int7", "a.kernel.scale", "a.kernel.inputs", "b.kernel"}
    found = dequantize(stored)
    assert found.keys() == table.keys()
    steps = np.abs(table["a.kernel"] / factors["a.kernel"][:, None]).max(axis=0) / 63 * factors["a.kernel"][:, None]
    assert (np.abs(found["a.kernel"] - table["a.kernel"]) <= steps / 2 + 1e-6).all()


def test_a_weight_format_that_there_is_not_is_an_error() -> None:
    with pytest.raises(AssertionError, match="'int2'"):
        quantize({"a.kernel": np.ones((4, 4), np.float32)}, {"*": "int2"})  # type: ignore[dict-item]
