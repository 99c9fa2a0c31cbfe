import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from clipita_train.engine.config import OptimizerConfig, ParameterRule, StageConfig
from clipita_train.engine.optimizer import build_optimizer
from clipita_train.engine.rules import match_rules

pytestmark = pytest.mark.usefixtures("strict_types")

PARAMS = {
    "image": {"kernel": jnp.full((3, 4), 0.5), "bias": jnp.ones(4)},
    "head": {"kernel": jnp.full((4, 2), 0.5), "bias": jnp.ones(2)},
}
LOCKED, HEAD = ParameterRule("image/.*", 0.0), ParameterRule("head/.*")


def make_stage(*rules, learning_rate=0.1, **optimizer):
    return StageConfig("prova", rules, learning_rate, 8, optimizer=OptimizerConfig(**optimizer))


def one_update(stage, gradients, total_steps=100):
    optimizer = build_optimizer(stage, PARAMS, total_steps=total_steps)
    return jax.jit(optimizer.update)(gradients, optimizer.transform.init(PARAMS), PARAMS)


@pytest.mark.slow
def test_frozen_parameters_hold_no_state_and_do_not_move():
    optimizer = build_optimizer(make_stage(LOCKED, HEAD), PARAMS, total_steps=10)
    state = optimizer.transform.init(PARAMS)
    moments = [leaf.shape for leaf in jax.tree.leaves(state) if leaf.ndim]
    assert sorted(moments) == sorted(2 * [(4, 2), (2,)])  # mean and variance of the head's kernel and bias
    params = PARAMS
    for _ in range(3):
        params, state = optimizer.update(jax.tree.map(jnp.ones_like, params), state, params)
    assert (params["image"]["kernel"] == PARAMS["image"]["kernel"]).all()
    assert (params["head"]["kernel"] != PARAMS["head"]["kernel"]).all()


def test_multipliers_scale_the_update():
    gradients = jax.tree.map(jnp.ones_like, PARAMS)
    rules = (ParameterRule("image/.*", 0.1), HEAD)
    (params, _) = one_update(make_stage(*rules, warmup=0.0, clipping=0.0), gradients)
    moved = jax.tree.map(lambda new, old: float(abs(new - old).max()), params, PARAMS)
    assert moved["image"]["kernel"] == pytest.approx(0.1 * moved["head"]["kernel"], rel=1e-4)


@pytest.mark.slow
def test_update_equals_the_chain_written_out():
    """Adaptive clipping, AdaBelief, warm-up and cosine, against optax's own pieces."""
    random = np.random.default_rng(0)
    gradients = jax.tree.map(lambda leaf: jnp.float32(random.normal(size=leaf.shape)), PARAMS)
    schedule = optax.warmup_cosine_decay_schedule(0.0, 0.1, 10, 100)
    expected = optax.chain(optax.adaptive_grad_clip(0.01, 1e-3), optax.adabelief(schedule))
    optimizer = build_optimizer(make_stage(ParameterRule(".*")), PARAMS, total_steps=100)
    ours, reference = PARAMS, PARAMS
    state, reference_state = optimizer.transform.init(PARAMS), expected.init(PARAMS)
    for step in range(5):
        assert optimizer.learning_rate(jnp.int32(step)) == pytest.approx(0.01 * step, rel=1e-6)
        ours, state = optimizer.update(gradients, state, ours)
        with jax.numpy_dtype_promotion("standard"):
            updates, reference_state = expected.update(gradients, reference_state, reference)
        reference = optax.apply_updates(reference, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-6), ours, reference)


def test_clipping_limits_a_unit_by_its_own_weights():
    """A gradient 1,000 times too long in one output unit leaves the other units' updates as they were."""
    stage = make_stage(LOCKED, HEAD, kind="adamw", eps=1.0, warmup=0.0)  # eps 1: updates nearly follow gradients
    gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, 1e-3), PARAMS)
    spiked = jax.tree.map(lambda leaf: leaf, gradients)
    spiked["head"]["kernel"] = spiked["head"]["kernel"].at[:, 0].set(1000.0)
    (calm, _), (after, _) = one_update(stage, gradients), one_update(stage, spiked)
    np.testing.assert_array_equal(calm["head"]["kernel"][:, 1], after["head"]["kernel"][:, 1])
    assert abs(after["head"]["kernel"] - PARAMS["head"]["kernel"]).max() <= 0.1 * 0.011


def test_weight_decay_spares_vectors():
    zeros = jax.tree.map(jnp.zeros_like, PARAMS)
    stage = make_stage(LOCKED, HEAD, kind="adamw", weight_decay=0.5, warmup=0.0, eps=1e-8)
    params, _ = one_update(stage, zeros)
    np.testing.assert_allclose(params["head"]["kernel"], 0.5 * (1 - 0.1 * 0.5), rtol=1e-6)
    np.testing.assert_array_equal(params["head"]["bias"], PARAMS["head"]["bias"])
    np.testing.assert_array_equal(params["image"]["kernel"], PARAMS["image"]["kernel"])


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ((HEAD,), "image/bias: matches no rule\n  image/kernel: matches no rule"),
        ((ParameterRule(".*"), LOCKED), "image/kernel: matches '.*' and 'image/.*'"),
        ((LOCKED, HEAD, ParameterRule("txet/.*")), "rule 'txet/.*': matches no parameter"),
    ],
)
def test_every_parameter_matches_exactly_one_rule(rules, message):
    with pytest.raises(ValueError, match="exactly one rule") as raised:
        match_rules(rules, PARAMS)
    assert message in str(raised.value)


def test_a_stage_that_trains_nothing_is_refused():
    with pytest.raises(ValueError, match="'prova' freezes every parameter"):
        build_optimizer(make_stage(ParameterRule(".*", 0.0)), PARAMS, total_steps=10)


def test_stacked_layers_are_refused_by_clipping():
    params = {"layers": jnp.ones((12, 4, 4)), "token": jnp.ones((1, 1, 4))}
    stage = make_stage(ParameterRule(".*"))
    with pytest.raises(ValueError, match=r"rank-3 parameters: layers \(12, 4, 4\)\. "):
        build_optimizer(stage, params, total_steps=10)
    unclipped = dataclasses.replace(stage, optimizer=OptimizerConfig(clipping=0.0))
    build_optimizer(unclipped, params, total_steps=10)
    frozen = dataclasses.replace(stage, parameters=(ParameterRule("layers", 0.0), ParameterRule("token")))
    build_optimizer(frozen, params, total_steps=10)


@pytest.mark.parametrize(("decay", "halfway"), [("cosine", 0.5 + 0.5 * np.cos(np.pi * 23 / 45)), ("linear", 22 / 45)])
def test_the_schedule_warms_up_and_ends_at_zero(decay, halfway):
    optimizer = build_optimizer(make_stage(LOCKED, HEAD, decay=decay), PARAMS, total_steps=50)
    rates = [float(optimizer.learning_rate(jnp.int32(step))) for step in range(51)]
    assert rates[0] == 0
    assert np.argmax(rates) == 5
    assert rates[5] == pytest.approx(0.1)
    assert rates[28] == pytest.approx(0.1 * halfway)
    assert rates[50] == pytest.approx(0, abs=1e-8)


LAYERS = 3


def stack_and_parts():
    """Layers stacked on the leading axis, and the same ones each by itself."""
    random = np.random.default_rng(0)
    scale = np.array([0.01, 1.0, 100.0])  # norms that must not be mixed
    kernels = jnp.float32(random.normal(size=(LAYERS, 4, 5)) * scale[:, None, None])
    biases = jnp.float32(random.normal(size=(LAYERS, 5)) * scale[:, None])
    stack = {"blocks": {"kernel": kernels, "bias": biases}}
    return stack, {"blocks": {f"{i}": {"kernel": kernels[i], "bias": biases[i]} for i in range(LAYERS)}}


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", [{}, {"kind": "adamw", "eps": 1e-8, "weight_decay": 0.3}])
@pytest.mark.parametrize("layer_decay", [1.0, 0.5])
def test_stacked_layers_learn_as_they_would_by_themselves(optimizer, layer_decay):
    """Clipping by unit, weight decay of matrices alone, and layer-wise rates."""
    stack, parts = stack_and_parts()
    gradients = jax.tree.map(lambda leaf: jnp.broadcast_to(jnp.arange(1.0, 6.0), leaf.shape), stack)
    split = {"blocks": {f"{i}": jax.tree.map(lambda leaf, i=i: leaf[i], gradients["blocks"]) for i in range(LAYERS)}}
    results = []
    for params, gradient, rule in (
        (stack, gradients, ParameterRule("blocks/.*", layer_decay=layer_decay, stacked=True)),
        (parts, split, ParameterRule("blocks/([0-9]+)/.*", layer_decay=layer_decay)),
    ):
        built = build_optimizer(make_stage(rule, warmup=0.0, **optimizer), params, total_steps=100)
        state = built.transform.init(params)
        for _ in range(3):
            params, state = jax.jit(built.update)(gradient, state, params)
        results.append(params)
    for i in range(LAYERS):
        for name in ("kernel", "bias"):
            np.testing.assert_allclose(results[0]["blocks"][name][i], results[1]["blocks"][f"{i}"][name], rtol=1e-6)


def test_stacked_units_are_clipped_along_their_inputs():
    """The definition in NumPy: the norm over axis -2, one for each layer and output."""
    stack, _ = stack_and_parts()
    stage = make_stage(ParameterRule(".*", stacked=True), kind="adamw", b1=0.0, b2=0.0, eps=1e6, warmup=0.0)
    gradients = jax.tree.map(jnp.ones_like, stack)
    built = build_optimizer(stage, stack, total_steps=100)
    with jax.numpy_dtype_promotion("standard"):
        updates, _ = built.transform.update(gradients, built.transform.init(stack), stack)
    kernel = np.float64(stack["blocks"]["kernel"])
    norms = np.maximum(np.sqrt((kernel**2).sum(-2, keepdims=True)), 1e-3)  # (layers, 1, outputs)
    clipped = np.ones_like(kernel) * np.minimum(1, 0.01 * norms / np.sqrt(kernel.shape[-2]))
    assert (clipped < 1).any(), "nothing was clipped"
    expected = -0.1 * clipped / (clipped + 1e6)  # Adam without memory: g / (|g| + eps)
    np.testing.assert_allclose(updates["blocks"]["kernel"], expected, rtol=1e-5)


def test_earlier_layers_learn_more_slowly():
    _, parts = stack_and_parts()
    rule = ParameterRule("blocks/([0-9]+)/.*", 2.0, layer_decay=0.5)
    built = build_optimizer(make_stage(rule, warmup=0.0, clipping=0.0), parts, total_steps=100)
    params, _ = built.update(jax.tree.map(jnp.ones_like, parts), built.transform.init(parts), parts)
    moved = [float(abs(parts["blocks"][f"{i}"]["bias"] - params["blocks"][f"{i}"]["bias"]).mean()) for i in range(3)]
    np.testing.assert_allclose(np.divide(moved, moved[2]), [0.25, 0.5, 1.0], rtol=1e-4)


def test_frozen_stacks_hold_no_state():
    stack, _ = stack_and_parts()
    params = {**stack, **PARAMS}
    frozen = ParameterRule("blocks/.*", 0.0, stacked=True)
    built = build_optimizer(make_stage(frozen, LOCKED, HEAD, weight_decay=0.1), params, total_steps=10)
    shapes = [leaf.shape for leaf in jax.tree.leaves(built.transform.init(params)) if leaf.ndim]
    assert sorted(shapes) == sorted(2 * [(4, 2), (2,)])


@pytest.mark.slow
def test_weight_decay_spares_tokens_and_numbers():
    params = {"token": jnp.ones((1, 1, 4)), "scale": jnp.float32(3), "kernel": jnp.ones((4, 4))}
    stage = make_stage(ParameterRule(".*"), kind="adamw", eps=1e-8, weight_decay=0.5, warmup=0.0)
    built = build_optimizer(stage, params, total_steps=10)
    moved, _ = built.update(jax.tree.map(jnp.zeros_like, params), built.transform.init(params), params)
    assert (moved["token"] == 1).all()
    assert moved["scale"] == 3
    np.testing.assert_allclose(moved["kernel"], 0.95, rtol=1e-6)


def test_rules_that_mean_nothing_are_refused():
    for wrong, message in (
        ({"layer_decay": 0.0}, r"layer_decay must be in \(0, 1\]"),
        ({"multiplier": -1.0}, "multiplier must be >= 0"),
        ({"layer_decay": 0.5}, "pattern must be a pattern with one group"),
    ):
        with pytest.raises(ValueError, match=message):
            ParameterRule("image/.*", **wrong)
    with pytest.raises(ValueError, match=r"image/bias: the group .* holds 'image', not the number of a layer"):
        build_optimizer(make_stage(ParameterRule("(image)/.*", layer_decay=0.5), HEAD), PARAMS, total_steps=10)
    with pytest.raises(ValueError, match=r"scale: rule '\.\*' says that layers are stacked"):
        build_optimizer(make_stage(ParameterRule(".*", stacked=True)), {"scale": jnp.float32(3)}, total_steps=10)
