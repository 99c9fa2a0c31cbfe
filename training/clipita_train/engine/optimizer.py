"""Build the optax transformation of a stage; every parameter must match one of its rules."""

import re
from collections.abc import Sequence
from typing import NamedTuple, assert_never, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax

from clipita_train.engine.config import OptimizerConfig, ParameterRule, StageConfig
from clipita_train.engine.rules import Params, match_rules


class Optimizer(NamedTuple):
    """Everything that a train step needs to update parameters.

    Attributes:
        transform: Gradients to updates; frozen parameters have no optimizer state, and get zeros.
        trained: A tree like the parameters, with False for frozen ones.
        schedule: Number of updates so far to learning rate.
    """

    transform: optax.GradientTransformation
    trained: Params
    schedule: optax.Schedule

    def update(self, gradients: Params, opt_state: optax.OptState, params: Params) -> tuple[Params, optax.OptState]:
        """Return (new parameters, new optimizer state)."""
        with jax.numpy_dtype_promotion("standard"):  # optax raises Python floats to the power of integer counts
            updates, opt_state = self.transform.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

    def learning_rate(self, step: jax.Array) -> jax.Array:
        """Return the learning rate () float32 after `step` updates, for a multiplier of 1."""
        with jax.numpy_dtype_promotion("standard"):
            return jnp.float32(self.schedule(step))


def build_optimizer(stage: StageConfig, params: Params, *, total_steps: int) -> Optimizer:
    """Build the optimizer of a stage for these parameters.

    Raises:
        ValueError: A parameter matches no rule or several, a rule matches none, nothing is trained, a layer has no
            number, or adaptive clipping cannot tell the units of a trained parameter. The message names the parameters.
    """
    config = stage.optimizer
    leaves, structure = jax.tree.flatten(params)
    matched = match_rules(stage.parameters, params)
    rules = [rule for _, rule in matched]
    if not any(rule.multiplier for rule in rules):
        raise ValueError(f"stage {stage.name!r} freezes every parameter: give a rule a multiplier above 0")
    layers = [_one_layer(path, rule, leaf) for (path, rule), leaf in zip(matched, leaves, strict=True)]
    if config.clipping:
        _check_clipping_units(matched, layers)

    labels = [_label(config, rule, layer) for rule, layer in zip(rules, layers, strict=True)]
    schedule = _schedule(config, stage.learning_rate, total_steps)
    # `optax.chain(..., set_to_zero)` would keep both moments for frozen leaves; `partition` keeps none.
    updates = optax.partition(
        {
            "frozen": optax.set_to_zero(),
            "plain": _rule_of_update(config, schedule, weight_decay=0.0),
            "decayed": _rule_of_update(config, schedule, weight_decay=config.weight_decay),
        },
        structure.unflatten(labels),
    )
    multipliers = structure.unflatten(_multipliers(matched, leaves))
    transform = optax.chain(
        _clip_by_unit(config, structure.unflatten(rules)) if config.clipping else optax.identity(),
        updates,
        optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, multipliers)),
    )
    return Optimizer(transform, structure.unflatten([bool(rule.multiplier) for rule in rules]), schedule)


def _schedule(config: OptimizerConfig, peak: float, total_steps: int) -> optax.Schedule:
    warmup = round(config.warmup * total_steps)
    match config.decay:
        case "cosine":
            return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps=warmup, decay_steps=total_steps)
        case "linear":
            rise = optax.linear_schedule(0.0, peak, warmup)
            return optax.join_schedules([rise, optax.linear_schedule(peak, 0.0, total_steps - warmup)], [warmup])
        case _:
            assert_never(config.decay)


def _one_layer(path: str, rule: ParameterRule, leaf: jax.Array) -> tuple[int, ...]:
    """Return the shape of a parameter, or of one layer of a stacked parameter."""
    if rule.stacked and leaf.ndim == 0:
        raise ValueError(f"{path}: rule {rule.pattern!r} says that layers are stacked in it, but it is a single number")
    return leaf.shape[1:] if rule.stacked else leaf.shape


def _label(config: OptimizerConfig, rule: ParameterRule, layer: tuple[int, ...]) -> str:
    """Return the group of a parameter: frozen, plain or decayed.

    Weight decay is for matrices and kernels, not for biases, normalization scales, tokens and single numbers.
    """
    if not rule.multiplier:
        return "frozen"
    return "decayed" if config.weight_decay and sum(size > 1 for size in layer) >= 2 else "plain"


def _rule_of_update(
    config: OptimizerConfig, schedule: optax.Schedule, *, weight_decay: float
) -> optax.GradientTransformation:
    match config.kind:
        case "adabelief":
            scale = optax.scale_by_belief(config.b1, config.b2, eps=config.eps, eps_root=config.eps)
        case "adamw":
            scale = optax.scale_by_adam(config.b1, config.b2, eps=config.eps)
        case _:
            assert_never(config.kind)
    decay = optax.add_decayed_weights(weight_decay) if weight_decay else optax.identity()
    return optax.chain(scale, decay, optax.scale_by_learning_rate(schedule))


def _clip_by_unit(config: OptimizerConfig, rules: Params) -> optax.GradientTransformation:
    """Clip the gradients of trained parameters adaptively; those of stacked parameters layer by layer.

    Source: Brock et al., "High-Performance Large-Scale Image Recognition Without Normalization" (arXiv:2102.06171).
    """
    clip = optax.adaptive_grad_clip(config.clipping, config.clipping_eps)

    def clipped(gradient: jax.Array, parameter: jax.Array) -> jax.Array:
        update, _ = clip.update(gradient, clip.init(parameter), parameter)
        return cast("jax.Array", update)  # of one array it is one; optax's type is any tree

    def clip_leaf(gradient: jax.Array, parameter: jax.Array, rule: ParameterRule) -> jax.Array:
        if not rule.multiplier:
            return gradient
        return jax.vmap(clipped)(gradient, parameter) if rule.stacked else clipped(gradient, parameter)

    return optax.stateless(lambda gradients, params: jax.tree.map(clip_leaf, gradients, params, rules))


def _multipliers(matched: Sequence[tuple[str, ParameterRule]], leaves: list[jax.Array]) -> list[float | np.ndarray]:
    """Return the share of the learning rate for each parameter; for stacked ones an array that broadcasts to it."""
    numbers = [_layer_number(path, rule) for path, rule in matched]
    deepest: dict[ParameterRule, int] = {}
    for (_, rule), number in zip(matched, numbers, strict=True):
        deepest[rule] = max(number, deepest.get(rule, 0))
    shares: list[float | np.ndarray] = []
    for (_, rule), number, leaf in zip(matched, numbers, leaves, strict=True):
        if rule.stacked:
            above = np.arange(len(leaf))[::-1].reshape(-1, *(1,) * (leaf.ndim - 1))
            shares.append((rule.multiplier * rule.layer_decay**above).astype(np.float32))
        else:
            shares.append(rule.multiplier * rule.layer_decay ** (deepest[rule] - number))
    return shares


def _layer_number(path: str, rule: ParameterRule) -> int:
    """Return the number in the pattern's group; 0 where all layers learn alike or are stacked."""
    if rule.layer_decay == 1 or rule.stacked:
        return 0
    match = re.fullmatch(rule.pattern, path)
    number = match[1] if match else None
    if number is None or not number.isdecimal():
        raise ValueError(f"{path}: the group of rule {rule.pattern!r} holds {number!r}, not the number of a layer")
    return int(number)


def _check_clipping_units(matched: Sequence[tuple[str, ParameterRule]], layers: list[tuple[int, ...]]) -> None:
    """Refuse shapes for which optax would take the wrong unit.

    Clipping compares norms over the inputs of one output unit. For rank 3 optax sums over axis 0 alone. That is right
    for attention kernels (width, heads, head width). It is wrong for layers stacked by a scan (layers, inputs,
    outputs), where it would mix layers, and for 1-D convolutions and position tables (1, tokens, width).
    """
    wrong = [
        f"{path} {shape}"
        for (path, rule), shape in zip(matched, layers, strict=True)
        if rule.multiplier and len(shape) == 3 and sum(size > 1 for size in shape) > 1
    ]
    if wrong:
        raise ValueError(
            "adaptive clipping cannot tell the units of rank-3 parameters: "
            + ", ".join(wrong)
            + ". If layers are stacked on the leading axis, say so by a rule with stacked=True; otherwise store them "
            + "as matrices, or set optimizer.clipping=0."
        )
