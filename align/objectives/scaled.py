"""Objectives that have beta: one abstract class for each kind, so that the setting is checked and explained once."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.base import Objective, PairObjective, SidedObjective
from align.objectives.links import logistic
from align.objectives.settings import check_positive


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledObjective(Objective):
    """Abstract: any objective with beta.

    Attributes:
        beta: how hard the policy is held to where it started, > 0. Smaller values let it move further.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        check_positive(beta=self.beta)
        self.check()

    def check(self) -> None:
        """Check the other settings; for subclasses."""

    @property
    def reward_scale(self) -> float:
        """Implicit rewards are beta times the log-ratios."""
        return self.beta


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledPairObjective(ScaledObjective, PairObjective):
    """Abstract: a :class:`~align.objectives.base.PairObjective` with beta."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LogisticObjective(ScaledPairObjective):
    """Abstract: DPO's link, ``-log sigmoid(beta * score)``; a subclass gives the score."""

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the logistic loss of beta times the score."""
        return logistic(self.beta * score)


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledSidedObjective(ScaledObjective, SidedObjective):
    """Abstract: a :class:`~align.objectives.base.SidedObjective` with beta."""
