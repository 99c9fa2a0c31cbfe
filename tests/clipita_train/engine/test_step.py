import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.engine.config import ParameterRule, StageConfig
from clipita_train.engine.optimizer import build_optimizer
from clipita_train.engine.state import create_state, split_model
from clipita_train.engine.step import (
    NonFiniteLossError,
    make_eval_step,
    make_train_step,
    pad_rows,
    put_batch,
    take_ids,
    validation_means,
)
from flax import nnx
from support.training_toy import HEADS, LOCKED, Pairs, Towers, loss_fn

pytestmark = pytest.mark.usefixtures("strict_types")

MESH = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))


def prepare(model, *rules):
    graphdef, params, rest = split_model(model)
    optimizer = build_optimizer(StageConfig("prova", rules, 0.01, 16), params, total_steps=10)
    state = create_state(params, rest, optimizer, stage=0, seed=0, sharding=jax.devices()[0])
    return graphdef, optimizer, state


def first_batch():
    return put_batch(take_ids(next(Pairs(160, 16, train=True)))[0], MESH)


@pytest.mark.slow
def test_a_step_consumes_its_state_and_leaves_the_model_alone():
    model = Towers(nnx.Rngs(0))
    graphdef, optimizer, state = prepare(model, LOCKED, HEADS)
    new_state, metrics = make_train_step(graphdef, loss_fn, optimizer)(state, first_batch())
    assert state.params["image"]["kernel"].is_deleted()
    assert not model.image.kernel[...].is_deleted()
    np.testing.assert_array_equal(new_state.params["image"]["kernel"], model.image.kernel[...])
    assert set(metrics) == {"loss", "cosine", "grad_norm", "learning_rate", "finite"}
    assert int(new_state.step) == 1
    assert metrics["finite"]


def test_a_locked_tower_is_not_differentiated():
    """One product a layer forward; backward one for the weights of a layer that learns, one for its inputs."""

    def products(*rules):
        graphdef, optimizer, state = prepare(Towers(nnx.Rngs(0)), *rules)
        jaxpr = jax.make_jaxpr(make_train_step(graphdef, loss_fn, optimizer))(state, first_batch())
        return str(jaxpr).count("dot_general[")

    forward = 4  # the image layer, two projections, the cosines
    assert products(LOCKED, HEADS) == forward + 2 + 2  # cosines: to both sides; projections: weights alone
    assert (
        products(ParameterRule(".*")) == forward + 2 + 2 * 2 + 1
    )  # and to their inputs, and the image layer's weights


def test_each_step_draws_from_its_own_key():
    _, _, state = prepare(Towers(nnx.Rngs(0)), LOCKED, HEADS)
    steps = [(stage, step) for stage in range(2) for step in range(3)]
    keys = [
        jax.random.key_data(type(state)(jnp.int32(stage), jnp.int32(step), {}, {}, (), state.key).step_key())
        for stage, step in steps
    ]
    assert len({tuple(np.asarray(key).tolist()) for key in keys}) == len(steps)


def test_statistics_are_carried_from_step_to_step():
    class Counter(nnx.Module):
        def __init__(self):
            self.weight = nnx.Param(jnp.ones(()))
            self.seen = nnx.BatchStat(jnp.zeros(()))

    def count(model, batch, key):
        model.seen[...] += 1.0
        return model.weight[...] * batch["x"].mean(), {}

    graphdef, optimizer, state = prepare(Counter(), ParameterRule("weight"))
    step = make_train_step(graphdef, count, optimizer)
    for _ in range(3):
        state, _ = step(state, {"x": np.ones(4, np.float32)})
    assert state.rest["seen"] == 3


def test_what_is_not_finite_is_flagged():
    graphdef, optimizer, state = prepare(Towers(nnx.Rngs(0)), LOCKED, HEADS)
    batch = first_batch()
    batch["pixels"] = batch["pixels"].at[3].set(jnp.nan)
    _, metrics = make_train_step(graphdef, loss_fn, optimizer)(state, batch)
    assert not metrics["finite"]


def test_padding_keeps_every_row_and_marks_the_rest():
    batch = pad_rows({"pixels": np.arange(6.0).reshape(3, 2), "ids": np.array(["a", "b", "c"])}, 5)
    assert batch["mask"].tolist() == [True, True, True, False, False]
    assert batch["ids"].tolist() == ["a", "b", "c", "c", "c"]
    assert batch["pixels"].shape == (5, 2)
    for wrong in ({"x": np.zeros(6)}, {"x": np.zeros(2), "y": np.zeros(3)}, {"x": np.zeros(0)}):
        with pytest.raises(ValueError, match="between 1 and 5"):
            pad_rows(wrong, 5)


def test_validation_weighs_batches_by_their_real_rows():
    graphdef, _, state = prepare(Towers(nnx.Rngs(0)), LOCKED, HEADS)

    def mean_word(model, batch, key):
        assert key is None
        words = batch["words"].astype(jnp.float32) * batch["mask"].astype(jnp.float32)
        return words.sum() / batch["mask"].sum().astype(jnp.float32), {}

    pairs = Pairs(50, 16, train=False)
    rows, means = validation_means(make_eval_step(graphdef, mean_word), state, pairs, MESH)
    assert rows == 50
    assert means == {"loss": pytest.approx(pairs.words.mean(), rel=1e-6)}


def test_validation_refuses_what_it_cannot_count():
    graphdef, _, state = prepare(Towers(nnx.Rngs(0)), LOCKED, HEADS)
    eval_step = make_eval_step(graphdef, loss_fn)
    with pytest.raises(ValueError, match=r"need 'mask'.* this one has pixels, words"):
        validation_means(eval_step, state, Pairs(16, 16, train=True), MESH)
    with pytest.raises(ValueError, match="no validation batch has a row"):
        validation_means(eval_step, state, [], MESH)
    broken = next(Pairs(16, 16, train=False))
    broken["pixels"][:] = np.nan
    with pytest.raises(NonFiniteLossError, match=r"validation batch 0 after training step 0.*loss=nan.*ids.*0, 1, 2"):
        validation_means(eval_step, state, [broken], MESH)


def test_rows_that_do_not_divide_by_the_devices_are_named():
    with pytest.raises(ValueError, match=r"'bank/temperature' has shape \(\): pad its rows to a multiple of 1"):
        put_batch({"bank": {"ids": np.ones(3), "temperature": np.float32(1)}}, MESH)
