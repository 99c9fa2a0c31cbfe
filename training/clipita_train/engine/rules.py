"""Match parameters with rules by their paths: each parameter matches exactly one rule, and each rule some parameter."""

import re
from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

import jax

Params = Any  # a pytree of arrays


class HasPattern(Protocol):
    """A rule with a regular expression for paths of parameters."""

    @property
    def pattern(self) -> str:
        """The regular expression."""
        ...


Rule = TypeVar("Rule", bound=HasPattern)


def parameter_paths(params: Params) -> list[str]:
    """Return the path of every parameter, such as "image/stem/kernel", in the order of `jax.tree.leaves`."""
    return [
        jax.tree_util.keystr(path, simple=True, separator="/")
        for path, _ in jax.tree_util.tree_flatten_with_path(params)[0]
    ]


def match_rules(rules: Sequence[Rule], params: Params) -> list[tuple[str, Rule]]:
    """Return the path and the rule of every parameter, in the order of `jax.tree.leaves`.

    Raises:
        ValueError: A parameter matches no rule or several, or a rule matches none; the message names all of them.
    """
    paths = parameter_paths(params)
    matches = {path: [rule for rule in rules if re.fullmatch(rule.pattern, path)] for path in paths}
    problems = [f"{path}: matches no rule" for path in paths if not matches[path]]
    problems += [
        f"{path}: matches {' and '.join(repr(rule.pattern) for rule in matches[path])}"
        for path in paths
        if len(matches[path]) > 1
    ]
    used = {rule for found in matches.values() for rule in found}
    problems += [f"rule {rule.pattern!r}: matches no parameter" for rule in rules if rule not in used]
    if problems:
        raise ValueError("every parameter must match exactly one rule:\n  " + "\n  ".join(problems))
    return [(path, matches[path][0]) for path in paths]
