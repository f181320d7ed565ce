"""Kahneman-Tversky optimisation: Ethayarajh et al., 2024, arXiv:2402.01306, Eq. 7.

Departures: the reference point is estimated from completions of other prompts of the optimiser step (in the authors'
code and in TRL: of the batch), and not below 0.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives.cards import Card, Limit
from align.objectives.logps import SequenceLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import ScaledSidedObjective
from align.objectives.settings import check_positive

KTO_CARD = Card(
    title="Kahneman-Tversky optimisation",
    loss="desirable_weight*(1 - sigma(beta*(h_w - z))) + undesirable_weight*(1 - sigma(beta*(z - h_l)))",
    d_w="desirable_weight*beta*sigma(beta*(h_w - z))*sigma(-beta*(h_w - z))",
    d_l="undesirable_weight*beta*sigma(beta*(z - h_l))*sigma(-beta*(z - h_l))",
    source="Ethayarajh et al., 2024, arXiv:2402.01306, Eq. 7; z is the mean log-ratio of completions of other prompts, "
    "not below 0, without gradient",
    checked="TRL 1.16",
    does="Each completion is pulled hardest near the reference point z and left alone far from it, on both sides: what "
    "is hopeless is given up.",
    limits=(Limit(says="is apo_zero at z = 0 and weights of 1", of="apo_zero"),),
    examples=({"beta": 0.5, "desirable_weight": 1.5, "undesirable_weight": 0.7},),
)


@OBJECTIVES.register("kto", KTO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class KTO(ScaledSidedObjective):
    """A value of each completion that saturates away from a reference point.

    Attributes:
        desirable_weight: weight of desirable completions, > 0.
        undesirable_weight: weight of undesirable ones, > 0; with n desirable and m undesirable rows the paper asks for
            desirable_weight * n / (undesirable_weight * m) from 1 to 4/3.
    """

    needs_mismatched = True
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def check(self) -> None:
        """Check the weights."""
        check_positive(desirable_weight=self.desirable_weight, undesirable_weight=self.undesirable_weight)

    def side_score(self, rows: SequenceLogps, reference: SequenceLogps | None) -> Float[Tensor, " sequences"]:
        """Return the log-ratio minus the reference point; 0 where none was estimated."""
        assert reference is not None
        ratio = rows.logps - reference.logps
        return ratio if rows.baseline is None else ratio - rows.baseline.clamp(min=0.0).to(ratio.dtype)

    def chosen_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the value that a desirable completion falls short of 1."""
        return self.desirable_weight * torch.sigmoid(-self.beta * score)

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the value that an undesirable completion falls short of 1."""
        return self.undesirable_weight * torch.sigmoid(self.beta * score)
