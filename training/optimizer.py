"""From a stage's configuration to an optax transformation in which every parameter is accounted for."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from training.config import OptimizerConfig, StageConfig
from training.rules import Params, match_rules, parameter_paths


class Optimizer(NamedTuple):
    """What a train step needs to update parameters.

    Attributes:
        transform: gradients to updates; frozen parameters hold no optimizer state and get zeros.
        multipliers: like the parameters, a float each: the share of the learning rate, 0 where frozen.
        schedule: number of updates made so far to learning rate.
    """

    transform: optax.GradientTransformation
    multipliers: Params
    schedule: optax.Schedule

    def update(self, gradients: Params, opt_state: optax.OptState, params: Params) -> tuple[Params, optax.OptState]:
        """(new parameters, new optimizer state)."""
        with jax.numpy_dtype_promotion("standard"):  # optax raises Python floats to the power of integer counts
            updates, opt_state = self.transform.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), opt_state

    def learning_rate(self, step: jax.Array) -> jax.Array:
        """() float32, for the update after `step` updates and a multiplier of 1."""
        with jax.numpy_dtype_promotion("standard"):
            return jnp.float32(self.schedule(step))


def build_optimizer(stage: StageConfig, params: Params, *, total_steps: int) -> Optimizer:
    """The optimizer of one stage for these parameters.

    Raises:
        ValueError: a parameter matches no rule or several, a rule matches none, nothing is trained, or a trained
            parameter has a shape for which adaptive clipping knows no unit. Parameters are named.
    """
    rules = [rule for _, rule in match_rules(stage.parameters, params)]
    multipliers = jax.tree.unflatten(jax.tree.structure(params), [rule.multiplier for rule in rules])
    labels = jax.tree.map(lambda multiplier: "trained" if multiplier else "frozen", multipliers)
    if "trained" not in jax.tree.leaves(labels):
        raise ValueError(f"stage {stage.name!r} freezes every parameter: give a rule a multiplier above 0")
    if stage.optimizer.clipping:
        _check_clipping_units(params, multipliers)
    schedule = optax.warmup_cosine_decay_schedule(
        init_value=0.0,
        peak_value=stage.learning_rate,
        warmup_steps=round(stage.optimizer.warmup * total_steps),
        decay_steps=total_steps,
    )
    # Masking frozen leaves by `optax.chain(..., set_to_zero)` would keep both moments for them; `partition` keeps none.
    transform = optax.chain(
        optax.partition({"trained": _rule_of_update(stage.optimizer, schedule), "frozen": optax.set_to_zero()}, labels),
        optax.stateless(lambda updates, _: jax.tree.map(jnp.multiply, updates, multipliers)),
    )
    return Optimizer(transform, multipliers, schedule)


def _rule_of_update(config: OptimizerConfig, schedule: optax.Schedule) -> optax.GradientTransformation:
    clip = optax.adaptive_grad_clip(config.clipping, config.clipping_eps) if config.clipping else optax.identity()
    if config.kind == "adabelief":
        scale = optax.scale_by_belief(config.b1, config.b2, eps=config.eps, eps_root=config.eps)
    else:
        scale = optax.scale_by_adam(config.b1, config.b2, eps=config.eps)
    decay = optax.add_decayed_weights(config.weight_decay, mask=_is_matrix) if config.weight_decay else optax.identity()
    return optax.chain(clip, scale, decay, optax.scale_by_learning_rate(schedule))


def _is_matrix(params: Params) -> Params:
    """Where weight decay applies: not to biases, normalisation scales and single numbers."""
    return jax.tree.map(lambda leaf: leaf.ndim >= 2, params)


def _check_clipping_units(params: Params, multipliers: Params) -> None:
    """Refuses shapes for which optax would take the wrong unit.

    Clipping compares norms over the inputs of one output unit. For rank 3 optax sums over axis 0 alone, which is right
    for attention kernels (width, heads, head width), and wrong for layers stacked by a scan (layers, inputs, outputs),
    whose norms it would mix across layers, and for 1-D convolutions and position tables (1, tokens, width).
    """
    wrong = [
        f"{path} {leaf.shape}"
        for path, leaf, multiplier in zip(
            parameter_paths(params), jax.tree.leaves(params), jax.tree.leaves(multipliers), strict=True
        )
        if multiplier and leaf.ndim == 3 and sum(size > 1 for size in leaf.shape) > 1
    ]
    if wrong:
        raise ValueError(
            "adaptive clipping cannot tell the units of rank-3 parameters: "
            + ", ".join(wrong)
            + ". Store them unstacked and as matrices, or set optimizer.clipping=0."
        )
