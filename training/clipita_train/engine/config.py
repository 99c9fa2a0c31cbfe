"""Configurations of runs, as frozen dataclasses, and the strict `--set a.b=c` that changes one value."""

import re
import types
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def require(holds: bool, name: str, expected: str, value: object) -> None:
    """Raise a ValueError that says what a setting must be, unless the condition holds.

    Args:
        holds: The condition.
        name: Name of the setting.
        expected: What it must be.
        value: What it is.
    """
    if not holds:
        raise ValueError(f"{name} must be {expected}, not {value!r}")


def check_choices(config: Any) -> None:
    """Check that every field of type Literal holds one of its values, since Python does not.

    Code that depends on such a field has a case for each value, and none for all others.

    Raises:
        ValueError: A field has another value; the message lists those that are allowed.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        for part in (hint, *get_args(hint)):
            if get_origin(part) is Literal and value is not None and value not in get_args(part):
                known = get_args(part)
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")


@dataclass(frozen=True)
class ParameterRule:
    """A rule on how fast parameters learn, relative to the learning rate of the stage; 0 freezes them.

    With `layer_decay` below 1 the deepest layer learns at `multiplier`, and each layer before it `layer_decay` times as
    fast as the next one.

    Attributes:
        pattern: A regular expression that must match the whole path of a parameter, such as "image/blocks/0/kernel".
            With `layer_decay` it has one group, the number of the layer, as in "image/blocks/([0-9]+)/.*".
        multiplier: Times the learning rate of the stage.
        layer_decay: From 0 to 1.
        stacked: Whether a scan over layers keeps all layers in one parameter, along its leading axis. That axis then
            gives the number of the layer, and each layer is clipped by its own norms.
    """

    pattern: str
    multiplier: float = 1.0
    layer_decay: float = 1.0
    stacked: bool = False

    def __post_init__(self) -> None:
        require(self.multiplier >= 0, "multiplier", ">= 0", self.multiplier)
        require(0 < self.layer_decay <= 1, "layer_decay", "in (0, 1]", self.layer_decay)
        numbered = self.layer_decay == 1 or self.stacked or re.compile(self.pattern).groups == 1
        require(
            numbered,
            "pattern",
            "a pattern with one group, the number of the layer; (?:...) groups without counting",
            self.pattern,
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """Adaptive gradient clipping, AdaBelief or AdamW, a linear warm-up and a decay to 0.

    The defaults are those of CLIP-Italian.
    """

    kind: Literal["adabelief", "adamw"] = "adabelief"
    clipping: float = 0.01  # largest ratio of a unit's gradient norm to its weight norm; 0 switches clipping off
    clipping_eps: float = 1e-3  # weight norms count as at least this, so that weights of zero can start to move
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-16  # 1e-8 is usual for adamw
    weight_decay: float = 0.0  # decoupled, times the learning rate; on matrices and kernels only
    warmup: float = 0.1  # as a share of the steps of the stage
    decay: Literal["cosine", "linear"] = "cosine"  # over the rest of the steps

    def __post_init__(self) -> None:
        check_choices(self)
        require(0 <= self.warmup < 1, "warmup", "a share in [0, 1)", self.warmup)
        require(self.clipping >= 0, "clipping", ">= 0", self.clipping)


@dataclass(frozen=True)
class StageConfig:
    """One part of a run, with its own trained parameters and schedule.

    Every parameter must match exactly one of the rules in `parameters`. The stage ends after `steps` updates if they
    are given, otherwise after `epochs` passes over the data. It ends earlier if `patience` evaluations in a row have
    not improved the best validation loss.
    """

    name: str
    parameters: tuple[ParameterRule, ...]
    learning_rate: float
    batch_size: int  # global: over all devices and hosts
    epochs: float = 1.0
    steps: int | None = None
    eval_every: int = (
        100  # steps between evaluations; the stage also evaluates before its first step and after its last
    )
    patience: int | None = None
    start_from: Literal["best", "last"] = (
        "best"  # weights of the stage before; the first stage starts from the given model
    )
    optimizer: OptimizerConfig = OptimizerConfig()

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.batch_size >= 1, "batch_size", ">= 1", self.batch_size)
        require(self.eval_every >= 1, "eval_every", ">= 1", self.eval_every)
        require(self.patience is None or self.patience >= 1, "patience", "None or >= 1", self.patience)
        require(self.epochs > 0, "epochs", "> 0", self.epochs)
        require(self.steps is None or self.steps >= 1, "steps", "None or >= 1", self.steps)
        require(self.learning_rate > 0, "learning_rate", "> 0 (freeze by a rule)", self.learning_rate)


@dataclass(frozen=True)
class ShardingRule:
    """A rule that splits parameters over the axis "fsdp" of the mesh; `pattern` is as in `ParameterRule`."""

    pattern: str
    axis: int | None = None  # the axis to split; None: every device holds the whole parameter


@dataclass(frozen=True)
class MeshConfig:
    """The way in which devices share a model.

    The parameters that a rule splits are divided into `fsdp` parts, and each device holds one part with its optimizer
    state. Every parameter must match exactly one of the rules in `parameters`.
    """

    fsdp: int = 1
    parameters: tuple[ShardingRule, ...] = (ShardingRule(".*"),)

    def __post_init__(self) -> None:
        require(self.fsdp >= 1, "fsdp", ">= 1", self.fsdp)


@dataclass(frozen=True)
class LossConfig:
    """The comparison of image and text embeddings; see `clipita_train.losses.configured.PairLoss`."""

    kind: Literal["softmax", "per_device", "sigmoid"] = "softmax"  # per_device is for reproducing CLIP-Italian only
    logit_scale: float = 20.0  # the multiplier itself, and its start if it is learned; CLIP-Italian had it fixed
    logit_bias: float = 0.0  # for the sigmoid loss only; SigLIP starts at -10
    margin: float = 0.0  # subtracted from the cosines of right pairs
    learned: bool = False  # whether the logit scale, and the bias of the sigmoid loss, are learned
    largest_scale: float = 100.0  # limit of a learned scale, as in CLIP
    device_batch: int | None = (
        None  # for per_device, how many pairs a device had in the run to reproduce; None: as many as here
    )

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.logit_scale > 0, "logit_scale", "> 0", self.logit_scale)
        require(0 <= self.margin < 2, "margin", "a difference of cosines in [0, 2)", self.margin)
        require(
            self.kind == "sigmoid" or not self.logit_bias, "logit_bias", "0 unless kind is sigmoid", self.logit_bias
        )
        reachable = not self.learned or self.largest_scale >= self.logit_scale
        require(reachable, "largest_scale", f"at least the {self.logit_scale:g} it starts from", self.largest_scale)
        fits = self.device_batch is None or (self.kind == "per_device" and self.device_batch >= 1)
        require(fits, "device_batch", "None, or >= 1 with per_device", self.device_batch)


@dataclass(frozen=True)
class TrainConfig:
    """The configuration of a whole run."""

    stages: tuple[StageConfig, ...]
    seed: int = 0
    log_every: int = 10  # steps between lines of the metrics file
    save_every: int | None = None  # steps between checkpoints, beside those at evaluations
    keep: int = 1  # how many of the latest checkpoints of a stage to keep, beside the best
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        require(len(self.stages) >= 1, "stages", "at least one stage", self.stages)
        require(self.log_every >= 1, "log_every", ">= 1", self.log_every)
        require(self.save_every is None or self.save_every >= 1, "save_every", "None or >= 1", self.save_every)
        require(self.keep >= 1, "keep", ">= 1", self.keep)


def replace_from_strings(config: Config, assignments: Sequence[str]) -> Config:
    """Return a copy of a configuration with some values replaced, for `--set` on the command line.

    Args:
        config: Any frozen dataclass; fields may be dataclasses and tuples of them.
        assignments: Such as "stages.0.learning_rate=1e-4". A number picks from a tuple, commas separate the values of a
            tuple, "none" is None, booleans are "true" and "false".

    Raises:
        ValueError: A path names nothing (the message has the nearest name), or a text is not of the type of its field.
    """
    for assignment in assignments:
        path, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"{assignment!r} sets nothing: write name=value, such as stages.0.learning_rate=1e-4")
        try:
            config = _replaced(config, type(config), path.strip().split("."), text.strip())
        except ValueError as error:
            raise ValueError(f"{assignment!r}: {error}") from None
    return config


def _replaced(value: Any, annotation: Any, path: Sequence[str], text: str) -> Any:
    if not path:
        return _parse(annotation, text)
    key, *rest = path
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        if key not in names:
            raise ValueError(f"{type(value).__name__} has {', '.join(names)}, not {key!r}{_did_you_mean(key, names)}")
        hint = get_type_hints(type(value))[key]
        return replace(value, **{key: _replaced(getattr(value, key), hint, rest, text)})
    if isinstance(value, tuple):
        if not key.isdecimal() or int(key) >= len(value):
            raise ValueError(f"{key!r} picks none of {len(value)} values; they count from 0")
        index = int(key)
        changed = _replaced(value[index], get_args(annotation)[0], rest, text)
        return (*value[:index], changed, *value[index + 1 :])
    raise ValueError(f"{key!r} is a part of {value!r}, which has no parts")


def _parse(annotation: Any, text: str) -> Any:
    """Convert a text to the value that it means for a field of this type."""
    origin, choices = get_origin(annotation), get_args(annotation)
    if origin in (Union, types.UnionType):  # X | None
        if text.lower() == "none" and types.NoneType in choices:
            return None
        return _parse(next(choice for choice in choices if choice is not types.NoneType), text)
    if origin is Literal:
        if text not in choices:
            raise ValueError(f"expected one of {', '.join(choices)}, not {text!r}{_did_you_mean(text, choices)}")
        return text
    if origin is tuple and not is_dataclass(choices[0]):
        return tuple(_parse(choices[0], part.strip()) for part in text.split(",") if part.strip())
    if annotation is bool and text.lower() in ("true", "false"):
        return text.lower() == "true"
    if annotation in (int, float, str):
        try:
            return annotation(text)
        except ValueError:
            raise ValueError(f"expected {annotation.__name__}, not {text!r}") from None
    if annotation is bool:
        raise ValueError(f"expected true or false, not {text!r}")
    raise ValueError("this is a group of settings: name one of its fields")


def _did_you_mean(name: str, known: Sequence[str]) -> str:
    nearest = get_close_matches(name, known, n=1)
    return f"; did you mean {nearest[0]!r}?" if nearest else ""
