"""Alignment via optimal transport: Melnyk et al., 2024, arXiv:2406.05882: distributions are compared, not pairs.

Sorting couples the pairs of a batch: a batch of one is DPO. Batches of several processes are sorted as one; those of an
accumulation each by itself, so that accumulating is another objective than a larger batch.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.cards import Card, Limit
from align.objectives.links import smoothed_logistic
from align.objectives.logps import PairLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import ScaledObjective
from align.objectives.scores import log_ratios
from align.objectives.settings import check_smoothing


def same_rank(x: Float[Tensor, " pairs"], y: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Return for each element of x the element of y that has the same rank in its batch.

    Examples:
        >>> import torch
        >>> same_rank(torch.tensor([3.0, 1.0, 2.0]), torch.tensor([10.0, 30.0, 20.0]))
        tensor([30., 10., 20.])
    """
    ranks = x.detach().argsort(stable=True).argsort()
    return y.sort(stable=True).values[ranks]


@dataclass(frozen=True, slots=True, kw_only=True)
class TransportObjective(ScaledObjective):
    """Abstract: a smoothed logistic loss of sorted differences.

    Attributes:
        label_smoothing: share of pairs whose label is taken to be wrong, at least 0 and below 0.5.
    """

    couples_pairs = True
    label_smoothing: float = 0.0

    def check(self) -> None:
        """Check the share."""
        check_smoothing(self.label_smoothing)


AOT_CARD = Card(
    title="Alignment via optimal transport, paired",
    loss="-(1 - label_smoothing)*log_sigma(beta*u) - label_smoothing*log_sigma(-beta*u)",
    d_w="beta*(sigma(-beta*u) - label_smoothing)",
    d_l="beta*(sigma(-beta*u) - label_smoothing)",
    where={"u": "m - same_rank(m, a0 - b0)"},
    source="Melnyk et al., 2024, arXiv:2406.05882, paired AOT",
    checked="TRL 1.16",
    does="Asks that the policy's margins, sorted, lie above the reference's, sorted: hard pairs may stay behind.",
    limits=(Limit(says="is DPO on a batch of one pair", of="dpo", pairs=1),),
    examples=({"beta": 0.5, "label_smoothing": 0.2},),
)


@OBJECTIVES.register("aot", AOT_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class AOT(TransportObjective):
    """Margins of the policy against margins of the reference of the same rank."""

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair at the rank of its margin."""
        assert reference is not None
        margin = policy.chosen - policy.rejected
        other = same_rank(margin, reference.chosen - reference.rejected)
        return smoothed_logistic(self.beta * (margin - other), self.label_smoothing)


AOT_UNPAIRED = Card(
    title="Alignment via optimal transport, unpaired",
    loss="-(1 - label_smoothing)*log_sigma(beta*u) - label_smoothing*log_sigma(-beta*u)",
    d_w="beta*(sigma(-beta*u) - label_smoothing)",
    d_l="beta*(sigma(-beta*v) - label_smoothing)",
    where={"u": "h_w - same_rank(h_w, h_l)", "v": "same_rank(h_l, h_w) - h_l"},
    source="Melnyk et al., 2024, arXiv:2406.05882, unpaired AOT",
    checked="TRL 1.16",
    does="Asks that the chosen rewards of a batch, sorted, lie above the rejected ones, sorted; who answers what "
    "prompt does not matter.",
    limits=(Limit(says="is DPO on a batch of one pair", of="dpo", pairs=1),),
    examples=({"beta": 0.5, "label_smoothing": 0.2},),
)


@OBJECTIVES.register("aot_unpaired", AOT_UNPAIRED)
@dataclass(frozen=True, slots=True, kw_only=True)
class AOTUnpaired(TransportObjective):
    """Chosen log-ratios against rejected ones of the same rank."""

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair at the rank of its chosen side."""
        chosen, rejected = log_ratios(policy, reference)
        return smoothed_logistic(self.beta * (chosen - same_rank(chosen, rejected)), self.label_smoothing)
