"""The section ``disentangle``: what is done so that chosen and rejected log-probabilities part."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, TypeAlias

from align.objectives.registry import did_you_mean
from align.recipe.convert import build, convert
from align.recipe.errors import MissingSettingError, RecipeError
from align.recipe.yaml_tree import Node, join

KEY = "disentangle"


def _check_limit(limit: float) -> None:
    if not 1 <= limit < math.inf:
        raise ValueError(f"limit must be at least 1 and finite, got {limit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Normalise:
    """Pairwise-normalised descent: each pair is pulled along ``g_w / s_w - g_l / s_l`` (Yuan et al., 2410.13828, 5.1).

    To first order the chosen then never falls and the rejected never rises, whatever the cosine of the two gradients:
    of the pair alone, where the objective pulls the chosen up and the rejected down, and ``limit`` is not met. Where it
    pulls one side only, or both the same way, the pair is left as it is; where it pulls both the other way (IPO past
    its target), the promise is the reverse.
    """

    limit: float = 100.0
    """Largest factor, and 1 / the smallest, by which a side's weight changes; a default of ours."""

    def __post_init__(self) -> None:
        _check_limit(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrate:
    """Reward calibration: weights of all pairs move to the centre of the band, by moving averages (2604.18239)."""

    ema: float = 0.98
    """Share of the past in the moving averages of log norms and log weights, in [0, 1)."""
    every: int = 1
    """Optimiser steps from one measurement of norms to the next."""
    norms: Literal["all", "head"] = "all"
    """Norms over all trained weights, the mean of pairs (ours); or of the head's mean gradient, as the authors do."""
    limit: float = 100.0
    """Largest factor, and 1 / the smallest, by which a side's weight changes; a default of ours."""

    def __post_init__(self) -> None:
        if not 0 <= self.ema < 1:
            raise ValueError(f"ema must lie in [0, 1), got {self.ema}")
        if self.every < 1:
            raise ValueError(f"every must be greater than 0, got {self.every}")
        _check_limit(self.limit)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sparse:
    """Sparse token masks: log-probabilities are sums over tokens that tell the two responses apart (2410.13828, 5.2).

    The paper's parameters and penalty are not known; what stands here is ours.
    """

    mask: Literal["learned", "contrast"] = "learned"
    """``learned``: a weight a token from the policy's hidden state; ``contrast``: 1 on tokens that differ."""
    penalty: float = 0.01
    """Price of the mean weight of a pair's tokens, in units of loss; only of a learned mask."""
    shared: float = 0.0
    """Weight of the tokens that both responses share, in [0, 1]; only of a contrast mask."""

    def __post_init__(self) -> None:
        if not 0 <= self.penalty < math.inf:
            raise ValueError(f"penalty must be at least 0 and finite, got {self.penalty}")
        if not 0 <= self.shared <= 1:
            raise ValueError(f"shared must lie in [0, 1], got {self.shared}")
        defaults = {each.name: each.default for each in fields(self)}
        for name, mask in (("penalty", "learned"), ("shared", "contrast")):
            if self.mask != mask and getattr(self, name) != defaults[name]:
                raise ValueError(f"{name} does not apply: mask is {self.mask!r}, and only {mask!r} reads it")


Disentangle: TypeAlias = Normalise | Calibrate | Sparse
METHODS: Mapping[str, type[Any]] = {"normalise": Normalise, "calibrate": Calibrate, "sparse": Sparse}


def build_disentangle(node: Node) -> Disentangle | None:
    """Make the section; a plain text is a method with its defaults.

    Raises:
        RecipeError: for an unknown method or setting, or a value out of range.
    """
    if node.value is None:
        return None
    if isinstance(node.value, str):
        node = Node({"name": node}, node.origin)
    if not isinstance(node.value, dict):
        raise RecipeError("expected a method, or a mapping with its name", key=KEY, origin=node.origin)
    if "name" not in node.value:
        raise MissingSettingError(join(KEY, "name"), hint=f": one of {', '.join(METHODS)}", origin=node.origin)
    name = convert(node.value["name"], str, join(KEY, "name"))
    if name not in METHODS:
        hint = did_you_mean(name, list(METHODS))
        raise RecipeError(f"no method {name!r}{hint}", key=join(KEY, "name"), origin=node.value["name"].origin)
    settings = Node({key: child for key, child in node.value.items() if key != "name"}, node.origin)
    found: Disentangle = build(settings, METHODS[name], KEY, owner=f"method {name!r}")
    return found


def name_of_method(settings: Disentangle) -> str:
    """Return what a method is called in recipes."""
    return next(name for name, cls in METHODS.items() if isinstance(settings, cls))
