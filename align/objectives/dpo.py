"""Direct preference optimisation: Rafailov et al., 2023, arXiv:2305.18290, Eq. 7.

Departures: none. The loss of each pair is returned; the paper's expectation is the trainer's mean over pairs.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.cards import Card
from align.objectives.divergences import ScaledLogRatioObjective
from align.objectives.links import logistic
from align.objectives.registry import OBJECTIVES


def dpo_loss(margin: Float[Tensor, " pairs"], *, beta: float) -> Float[Tensor, " pairs"]:
    r"""Return :math:`-\log\sigma(\beta h)` of each pair.

    Args:
        margin: h, the policy's log-ratio of chosen over rejected minus the reference's, in nats.
        beta: strength of the pull towards the reference, > 0; 0.1 to 0.5 is usual.

    Examples:
        >>> import torch
        >>> dpo_loss(torch.zeros(1), beta=0.1)
        tensor([0.6931])
    """
    return logistic(beta * margin)


DPO_CARD = Card(
    title="Direct preference optimisation",
    loss="-log_sigma(beta*D)",
    d_w="beta*sigma(-beta*D)",
    d_l="beta*sigma(-beta*D)",
    source="Rafailov et al., 2023, arXiv:2305.18290, Eq. 7",
    checked="source",
    does="Pulls both sides with the same weight, which fades as the margin grows. Where the two gradients are alike "
    "and the rejected one is the longer, both log-probabilities fall together; where the chosen one is, both rise.",
    examples=({"beta": 0.5},),
)


@OBJECTIVES.register("dpo", DPO_CARD, aliases=("sigmoid",))
@dataclass(frozen=True, slots=True, kw_only=True)
class DPO(ScaledLogRatioObjective):
    """Settings of :func:`dpo_loss`."""

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return :func:`dpo_loss`."""
        return dpo_loss(score, beta=self.beta)
