"""What a run is: frozen dataclasses that a recipe fills in, and the strict `--set a.b=c` that changes one value."""

import re
import types
from collections.abc import Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def require(holds: bool, name: str, expected: str, value: object) -> None:
    if not holds:
        raise ValueError(f"{name} must be {expected}, not {value!r}")


def check_choices(config: Any) -> None:
    """Check every field of a dataclass whose type is a Literal, or a Literal or None: nothing else does in Python.

    Whoever acts on such a field has a case for each of its values, and no case that takes all others.

    Raises:
        ValueError: a field has none of its values; says which there are.
    """
    for name, hint in get_type_hints(type(config)).items():
        value = getattr(config, name)
        for part in (hint, *get_args(hint)):
            if get_origin(part) is Literal and value is not None and value not in get_args(part):
                known = get_args(part)
                raise ValueError(f"{name} must be one of {', '.join(map(repr, known))}, not {value!r}")


@dataclass(frozen=True)
class ParameterRule:
    """Which parameters, and how fast they learn relative to the stage's learning rate; 0 freezes them.

    `pattern` is a regular expression that must match the whole path of a parameter, such as "image/blocks/0/kernel".

    With `layer_decay` below 1 the deepest layer learns at `multiplier`, and each one before it `layer_decay` times as
    fast as the next. The number of a layer is the pattern's one group, as in "image/blocks/([0-9]+)/.*", or, for
    parameters that are `stacked`, the place on their leading axis, where a scan over layers keeps them.
    """

    pattern: str
    multiplier: float = 1.0
    layer_decay: float = 1.0
    stacked: bool = False  # each layer is clipped by its own norms, and its biases are no matrix

    def __post_init__(self) -> None:
        require(self.multiplier >= 0, "multiplier", ">= 0", self.multiplier)
        require(0 < self.layer_decay <= 1, "layer_decay", "in (0, 1]", self.layer_decay)
        numbered = self.layer_decay == 1 or self.stacked or re.compile(self.pattern).groups == 1
        require(
            numbered, "pattern", "one with one group, the number of the layer; (?:...) groups nothing", self.pattern
        )


@dataclass(frozen=True)
class OptimizerConfig:
    """Adaptive gradient clipping, AdaBelief, linear warm-up and a decay to 0; by default as CLIP-Italian had it."""

    kind: Literal["adabelief", "adamw"] = "adabelief"
    clipping: float = 0.01  # largest ratio of a unit's gradient norm to its weight norm; 0 clips nothing
    clipping_eps: float = 1e-3  # weight norms count as at least this, so that zeros can start to move
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-16  # 1e-8 is usual for adamw
    weight_decay: float = 0.0  # decoupled, times the learning rate; on matrices and kernels only
    warmup: float = 0.1  # share of the stage's steps
    decay: Literal["cosine", "linear"] = "cosine"  # over the rest of them

    def __post_init__(self) -> None:
        check_choices(self)
        require(0 <= self.warmup < 1, "warmup", "a share in [0, 1)", self.warmup)
        require(self.clipping >= 0, "clipping", ">= 0", self.clipping)


@dataclass(frozen=True)
class StageConfig:
    """One stretch of training with one set of trainable parameters and one schedule.

    Every parameter has to match exactly one of `parameters`. The stage ends after `steps` updates if given, otherwise
    after `epochs` passes, or once `patience` evaluations in a row have not improved the best validation loss.
    """

    name: str
    parameters: tuple[ParameterRule, ...]
    learning_rate: float
    batch_size: int  # global: over all devices and hosts
    epochs: float = 1.0
    steps: int | None = None
    eval_every: int = 100  # steps between evaluations; one more comes before the first step and after the last
    patience: int | None = None
    start_from: Literal["best", "last"] = "best"  # of the stage before; the first starts from the model given
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
    """Which parameters are split over the axis 'fsdp' of the mesh; `pattern` as in `ParameterRule`."""

    pattern: str
    axis: int | None = None  # of the parameter; None: every device holds all of it


@dataclass(frozen=True)
class MeshConfig:
    """How devices share a model: each holds one of `fsdp` parts of the parameters that a rule splits, and its state.

    Every parameter has to match exactly one of `parameters`.
    """

    fsdp: int = 1
    parameters: tuple[ShardingRule, ...] = (ShardingRule(".*"),)

    def __post_init__(self) -> None:
        require(self.fsdp >= 1, "fsdp", ">= 1", self.fsdp)


@dataclass(frozen=True)
class LossConfig:
    """How image and text embeddings are compared; see `clipita_train.losses.configured.PairLoss`."""

    kind: Literal["softmax", "per_device", "sigmoid"] = "softmax"  # per_device: only for reproducing CLIP-Italian
    logit_scale: float = 20.0  # the multiplier itself; CLIP-Italian never learned it; where learned it starts there
    logit_bias: float = 0.0  # of the sigmoid loss alone; SigLIP starts at -10
    margin: float = 0.0  # taken from the cosines of right pairs
    learned: bool = False  # logit scale, and the sigmoid loss's bias
    largest_scale: float = 100.0  # what a learned scale counts as at most, as in CLIP
    device_batch: int | None = None  # pairs that a device had in what per_device reproduces; None: what each has here

    def __post_init__(self) -> None:
        check_choices(self)
        require(self.logit_scale > 0, "logit_scale", "> 0", self.logit_scale)
        require(0 <= self.margin < 2, "margin", "a difference of cosines in [0, 2)", self.margin)
        require(self.kind == "sigmoid" or not self.logit_bias, "logit_bias", "0 but for sigmoid", self.logit_bias)
        reachable = not self.learned or self.largest_scale >= self.logit_scale
        require(reachable, "largest_scale", f"at least the {self.logit_scale:g} it starts from", self.largest_scale)
        fits = self.device_batch is None or (self.kind == "per_device" and self.device_batch >= 1)
        require(fits, "device_batch", "None, or >= 1 with per_device", self.device_batch)


@dataclass(frozen=True)
class TrainConfig:
    """A whole run."""

    stages: tuple[StageConfig, ...]
    seed: int = 0
    log_every: int = 10  # steps between lines of the metrics file
    save_every: int | None = None  # steps between checkpoints, beside the one at every evaluation
    keep: int = 1  # latest checkpoints of a stage to keep, beside its best
    mesh: MeshConfig = MeshConfig()

    def __post_init__(self) -> None:
        require(len(self.stages) >= 1, "stages", "at least one stage", self.stages)
        require(self.log_every >= 1, "log_every", ">= 1", self.log_every)
        require(self.save_every is None or self.save_every >= 1, "save_every", "None or >= 1", self.save_every)
        require(self.keep >= 1, "keep", ">= 1", self.keep)


def replace_from_strings(config: Config, assignments: Sequence[str]) -> Config:
    """A copy of a config dataclass with values replaced, for `--set` on the command line.

    Args:
        config: any frozen dataclass; fields may be dataclasses and tuples of them.
        assignments: such as "stages.0.learning_rate=1e-4". A number picks from a tuple, commas part a tuple's values,
            "none" is None, booleans are "true" and "false".

    Raises:
        ValueError: the path names nothing (with the nearest name that exists), or the text is not of the field's type.
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
    """The value that a text means for a field of this type."""
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
