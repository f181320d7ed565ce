"""Direct preference optimisation: Rafailov et al., 2023, arXiv:2305.18290, Eq. 7.

Departures: none. The loss of each pair is returned; the paper's expectation is the trainer's mean over pairs.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.base import PairObjective
from align.objectives.links import logistic
from align.objectives.logps import PairLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scores import log_ratio_margin


def dpo_loss(margin: Float[Tensor, " pairs"], *, beta: float) -> Float[Tensor, " pairs"]:
    r"""Return :math:`-\log\sigma(\beta h)` of each pair.

    Args:
        margin: h, the policy's log-ratio of chosen over rejected minus the reference's, in nats.
        beta: strength of the pull towards the reference, > 0; 0.1 to 0.5 in the paper.

    Examples:
        >>> import torch
        >>> dpo_loss(torch.zeros(1), beta=0.1)
        tensor([0.6931])
    """
    return logistic(beta * margin)


@OBJECTIVES.register("dpo", aliases=("sigmoid",))
@dataclass(frozen=True, slots=True, kw_only=True)
class DPO(PairObjective):
    """Settings of :func:`dpo_loss`.

    Attributes:
        beta: how hard the policy is held to the reference, > 0. Smaller values let it move further.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.beta < math.inf:
            raise ValueError(f"beta must be greater than 0 and finite, got {self.beta}")

    @property
    def reward_scale(self) -> float:
        """Implicit rewards are beta times the log-ratios (paper, section 4)."""
        return self.beta

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the log-ratio margin."""
        assert reference is not None
        return log_ratio_margin(policy, reference)

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return :func:`dpo_loss`."""
        return dpo_loss(score, beta=self.beta)
