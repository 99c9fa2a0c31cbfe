import jax
import jax.numpy as jnp
import numpy as np
import pytest
from clipita_train.engine.config import OptimizerConfig, ParameterRule, StageConfig
from clipita_train.engine.gradient_cache import cached_loss
from clipita_train.engine.optimizer import build_optimizer
from clipita_train.engine.state import create_state, split_model
from clipita_train.engine.step import make_eval_step, make_train_step, pad_rows, take_ids
from clipita_train.losses.contrastive import softmax_contrastive
from flax import nnx
from support.training_toy import HEADS, LOCKED, Pairs, Towers

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("strict_types")]

ALL = (ParameterRule(".*"),)


def embed(model, batch, key):
    return model(batch["pixels"], batch["words"], key)


def compare(model, embeddings, batch):
    known = batch["mask"][:, None] & batch["mask"][None, :] if "mask" in batch else None
    return softmax_contrastive(*embeddings, logit_scale=20.0, known=known), {"rows": jnp.float32(len(embeddings[0]))}


def all_at_once(chunks):
    """What the chunks must equal: each with its own key, and everything in memory until the end."""

    def loss_fn(model, batch, key):
        parts = [
            embed(model, jax.tree.map(lambda leaf: leaf[c::chunks], batch), jax.random.fold_in(key, c))  # noqa: B023
            for c in range(chunks)
        ]
        count = len(batch["words"])
        order = np.argsort(np.concatenate([np.arange(count)[c::chunks] for c in range(chunks)]))
        return compare(model, jax.tree.map(lambda *leaves: jnp.concatenate(leaves)[order], *parts), batch)

    return loss_fn


def gradients(model, loss_fn, batch, seed=3):
    key = jax.random.key(seed)
    graphdef, params, rest = split_model(model)

    def loss_of(params):
        model = nnx.merge(graphdef, params, rest)
        loss, metrics = loss_fn(model, batch, key)
        return loss, (metrics, split_model(model)[2])

    return jax.jit(jax.value_and_grad(loss_of, has_aux=True))(params)


def batch_of(size):
    return take_ids(next(Pairs(160, size, train=True)))[0]


def assert_near(one, two, atol=1e-6):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6, atol=atol), one, two)


@pytest.mark.parametrize("chunks", [1, 2, 4, 16])
def test_gradients_with_dropout_equal_the_plain_ones(chunks):
    model = Towers(nnx.Rngs(0))
    model.train()
    loss_fn = all_at_once(chunks) if chunks > 1 else lambda m, b, k: compare(m, embed(m, b, k), b)
    batch = batch_of(16)
    cached = gradients(model, cached_loss(embed, compare, chunks=chunks), batch)
    assert_near(cached, gradients(model, loss_fn, batch))
    other_key = gradients(model, cached_loss(embed, compare, chunks=chunks), batch, seed=4)
    assert abs(cached[0][0] - other_key[0][0]) > 1e-3  # dropout was on


def test_without_dropout_chunks_change_nothing():
    model = Towers(nnx.Rngs(0))
    model.eval()
    one, four = (gradients(model, cached_loss(embed, compare, chunks=n), batch_of(32)) for n in (1, 4))
    assert_near(one, four, atol=1e-5)  # other sums of 32 terms; gradients are up to 8


@pytest.mark.parametrize("rules", [ALL, (LOCKED, HEADS)])
def test_a_training_step_in_chunks_is_the_plain_step(rules):
    def stepped(loss_fn):
        graphdef, params, rest = split_model(Towers(nnx.Rngs(0)))
        # eps 1, as AdaBelief divides by the size of a gradient and would turn rounding of zeros into steps
        stage = StageConfig("prova", rules, 0.01, 32, optimizer=OptimizerConfig(eps=1.0, warmup=0.0))
        optimizer = build_optimizer(stage, params, total_steps=10)
        state = create_state(params, rest, optimizer, stage=0, seed=0, sharding=jax.devices()[0])
        step = make_train_step(graphdef, loss_fn, optimizer)
        for _ in range(3):
            state, metrics = step(state, batch_of(32))
        return state.params, metrics

    assert_near(stepped(cached_loss(embed, compare, chunks=4)), stepped(all_at_once(4)))


class Normalised(nnx.Module):
    def __init__(self):
        self.layer = nnx.Linear(6, 4, rngs=nnx.Rngs(0))
        self.norm = nnx.BatchNorm(4, rngs=nnx.Rngs(0))


def test_statistics_go_from_chunk_to_chunk_once():
    def embed(model, batch, key):
        return model.norm(model.layer(batch["pixels"]))

    def compare(model, embeddings, batch):
        return (embeddings**2 * (1 + jnp.arange(4.0))[None]).sum(), {}

    def all_at_once(model, batch, key):
        parts = [embed(model, {"pixels": batch["pixels"][c::2]}, key) for c in range(2)]
        return compare(model, jnp.concatenate(parts), batch)

    batch = {"pixels": batch_of(16)["pixels"]}
    assert_near(
        gradients(Normalised(), cached_loss(embed, compare, chunks=2), batch),
        gradients(Normalised(), all_at_once, batch),
        atol=1e-5,
    )


def test_evaluation_takes_chunks_too():
    graphdef, params, rest = split_model(Towers(nnx.Rngs(0)))
    optimizer = build_optimizer(StageConfig("prova", ALL, 0.01, 32), params, total_steps=10)
    state = create_state(params, rest, optimizer, stage=0, seed=0, sharding=jax.devices()[0])
    batch = pad_rows(batch_of(20), 32)
    one, four = (make_eval_step(graphdef, cached_loss(embed, compare, chunks=n))(state, batch) for n in (1, 4))
    assert_near(one, four)


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match=r"shape \[\(16,\), \(16, 6\)\] do not divide into 3 chunks"):
        cached_loss(embed, compare, chunks=3)(Towers(nnx.Rngs(0)), batch_of(16), None)


def test_memory_is_that_of_one_chunk():
    class Wide(nnx.Module):
        def __init__(self):
            self.layers = nnx.List([nnx.Linear(64, 64, rngs=nnx.Rngs(seed)) for seed in range(6)])

    def embed(model, batch, key):
        x = batch["x"]  # (B, 32, 64)
        for layer in model.layers:
            x = jnp.tanh(layer(x))
        return x.mean(1)

    def compare(model, embeddings, batch):
        return softmax_contrastive(embeddings, embeddings[::-1], logit_scale=20.0), {}

    graphdef, params, rest = split_model(Wide())

    def bytes_needed(chunks):
        loss_fn = cached_loss(embed, compare, chunks=chunks)
        gradient = jax.jit(jax.grad(lambda p, x: loss_fn(nnx.merge(graphdef, p, rest), {"x": x}, None)[0]))
        shapes = params, jax.ShapeDtypeStruct((256, 32, 64), jnp.float32)
        return gradient.lower(*shapes).compile().memory_analysis().temp_size_in_bytes

    assert bytes_needed(16) < 0.4 * bytes_needed(1)
