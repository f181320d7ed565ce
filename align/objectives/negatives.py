"""Objectives that read the rejected alone: gradient ascent, NPO, SimNPO. No chosen completion is computed for them."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.base import SidedObjective
from align.objectives.cards import Card, Limit
from align.objectives.links import logistic
from align.objectives.logps import SequenceLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import ScaledSidedObjective
from align.objectives.settings import check_finite

GRADIENT_ASCENT = Card(
    title="Gradient ascent on the rejected",
    loss="b",
    d_w="0",
    d_l="1",
    source="the baseline of Zhang et al., 2024, arXiv:2404.05868",
    checked="source",
    does="Pushes the rejected down without end and takes the model along: it collapses unless stopped early.",
)


@OBJECTIVES.register("gradient_ascent", GRADIENT_ASCENT)
@dataclass(frozen=True, slots=True, kw_only=True)
class GradientAscent(SidedObjective):
    """The rejected's log-likelihood, to be minimised; it has no settings."""

    needs_reference = False
    reads = ("rejected",)

    def side_score(self, rows: SequenceLogps, reference: SequenceLogps | None) -> Float[Tensor, " sequences"]:
        """Return the log-probability."""
        return rows.logps

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the log-probability itself."""
        return score


NPO_CARD = Card(
    title="Negative preference optimisation",
    loss="-(2/beta)*log_sigma(-beta*h_l)",
    d_w="0",
    d_l="2*sigma(beta*h_l)",
    source="Zhang et al., 2024, arXiv:2404.05868",
    checked="source",
    does="DPO's rejected half: gradient ascent whose weight fades as the rejected falls below its reference.",
    limits=(
        Limit(
            says="pulls as gradient ascent does as beta goes to 0",
            at={"beta": 1e-7},
            of="gradient_ascent",
            gradient_only=True,
            within=1e-4,
        ),
    ),
    examples=({"beta": 1.0},),
)


@OBJECTIVES.register("npo", NPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class NPO(ScaledSidedObjective):
    """The logistic loss of the rejected's log-ratio, over beta."""

    reads = ("rejected",)

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return 2/beta times the logistic loss."""
        return 2 / self.beta * logistic(-self.beta * score)


SIMNPO_CARD = Card(
    title="Simple negative preference optimisation",
    loss="-(2/beta)*log_sigma(-beta*b_bar - gamma)",
    d_w="0",
    d_l="(2/n_l)*sigma(beta*b_bar + gamma)",
    source="Fan et al., 2024, arXiv:2410.07163; the same in open-unlearning, whose delta is gamma/beta",
    checked="source",
    does="NPO without a reference and a token: what is likely now is pushed most, whatever the model started from.",
    examples=({"beta": 0.7, "gamma": 0.5},),
)


@OBJECTIVES.register("simnpo", SIMNPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class SimNPO(ScaledSidedObjective):
    """The logistic loss of the rejected's mean log-probability, over beta.

    Attributes:
        beta: scale of the mean log-probability, > 0; 2.5 is a default of ours.
        gamma: shift, in units of beta times nats a token.
    """

    needs_reference = False
    needs_lengths = True
    reads = ("rejected",)
    beta: float = 2.5
    gamma: float = 0.0

    def check(self) -> None:
        """Check gamma."""
        check_finite(gamma=self.gamma)

    @property
    def mean_rewards(self) -> bool:
        """Rewards are a token."""
        return True

    def side_score(self, rows: SequenceLogps, reference: SequenceLogps | None) -> Float[Tensor, " sequences"]:
        """Return the mean log-probability."""
        return rows.mean_logps

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return 2/beta times the logistic loss."""
        return 2 / self.beta * logistic(-self.beta * score - self.gamma)
