"""DPO in which tokens, or pairs by their tokens, do not all count alike: LD-DPO, SamPO, WPO."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives.base import SIDES
from align.objectives.cards import Card, Limit
from align.objectives.logps import PairLogps, PairTokenLogps, TokenLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import LogisticObjective
from align.objectives.scores import log_ratio_margin
from align.objectives.weighting import down_sampled, length_desensitised


@dataclass(frozen=True, slots=True, kw_only=True)
class WeightedDPO(LogisticObjective):
    """Abstract: DPO of log-probabilities that were weighed otherwise."""

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the log-ratio margin of the weighed log-probabilities."""
        return log_ratio_margin(policy, reference)


LD_DPO = Card(
    title="Length-desensitised DPO",
    loss="-log_sigma(beta*D)",
    d_w="beta*sigma(-beta*D)",
    d_l="beta*sigma(-beta*D)",
    source="Liu et al., 2024, arXiv:2409.06411; a, b and their references weigh tokens beyond the shared length by "
    "alpha",
    checked="TRL 1.16",
    does="As DPO, with less to gain from the tokens that only the longer side has: answers grow less.",
    limits=(Limit(says="is DPO at alpha = 1", at={"alpha": 1.0}, of="dpo"),),
    examples=({"beta": 0.3, "alpha": 0.2},),
)


@OBJECTIVES.register("ld_dpo", LD_DPO)
@dataclass(frozen=True, slots=True, kw_only=True)
class LDDPO(WeightedDPO):
    """DPO with a weight on the tokens beyond the length that both sides share.

    Attributes:
        alpha: weight of those tokens, from 0 to 1; 0.5 is a default of ours. TRL calls it ld_alpha.
    """

    needs_lengths = True
    alpha: float = 0.5

    def check(self) -> None:
        """Check alpha."""
        if not 0 <= self.alpha <= 1:
            raise ValueError(f"alpha must lie in [0, 1], got {self.alpha}")

    def weigh(self, tokens: PairTokenLogps) -> PairLogps:
        """Weigh tokens beyond the shared length by alpha."""
        return length_desensitised(tokens, self.alpha)


SAMPO = Card(
    title="DPO on down-sampled tokens",
    loss="-log_sigma(beta*D)",
    d_w="beta*sigma(-beta*D)",
    d_l="beta*sigma(-beta*D)",
    source="Lu et al., 2024, arXiv:2406.10957; a, b and their references are sums over as many tokens as the shorter "
    "side has",
    checked="source",
    departs="Policy and reference keep the same tokens of a sequence.",
    does="As DPO, blind to length: each step sees as many tokens of both sides, drawn anew.",
    limits=(Limit(says="is DPO on completions of one token", of="dpo", tokens=1),),
    examples=({"beta": 0.3},),
)


@OBJECTIVES.register("sampo", SAMPO)
@dataclass(frozen=True, slots=True, kw_only=True)
class SamPO(WeightedDPO):
    """DPO on a random part of the longer side's tokens, drawn without replacement."""

    needs_lengths = True
    needs_draws = True

    def weigh(self, tokens: PairTokenLogps) -> PairLogps:
        """Keep as many tokens of the longer side as the shorter one has."""
        return down_sampled(tokens)


WPO_CARD = Card(
    title="Weighted preference optimisation",
    loss="-W*log_sigma(beta*D)",
    d_w="W*beta*sigma(-beta*D)",
    d_l="W*beta*sigma(-beta*D)",
    source="Zhou et al., 2024, arXiv:2406.11827, Eq. 2; W = exp(w + l), w and l the means over tokens of log p - log "
    "sum p^2",
    checked="TRL 1.16",
    departs="W is at most 1, as in the authors' code; TRL 1.16 does not bound it (bounded: false).",
    does="As DPO, with weight on pairs that the policy itself would have said: off-policy pairs count less.",
    examples=({"beta": 0.3, "bounded": False},),
)


@OBJECTIVES.register("wpo", WPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class WPO(WeightedDPO):
    """DPO weighed by how likely the policy itself is to say both sides; no gradient flows through the weight.

    Attributes:
        bounded: whether no pair counts more than once.
    """

    needs_lengths = True
    needs_collision = True
    bounded: bool = True

    def of_tokens(self, policy: PairTokenLogps, reference: PairTokenLogps | None = None) -> Float[Tensor, " pairs"]:
        """Return DPO's loss times the weight of each pair.

        Raises:
            ValueError: if the reference, or the sum of squared probabilities, is missing.
        """
        if reference is None:
            raise ValueError("WPO compares with a reference; pass its log-probabilities")
        return self.link(self.score(self.weigh(policy), self.weigh(reference))) * self.weights(policy)

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Refuse: sequence log-probabilities do not say how much a pair counts.

        Raises:
            ValueError: always.
        """
        raise ValueError("WPO is no function of sequence log-probabilities; call of_tokens")

    def weights(self, policy: PairTokenLogps) -> Float[Tensor, " pairs"]:
        """Return the weight of each pair.

        Raises:
            ValueError: if the tokens come without the sum of squared probabilities.
        """
        weights = torch.exp(sum((_likeness(getattr(policy, side)) for side in SIDES), start=torch.zeros(())))
        return weights.clamp(max=1.0) if self.bounded else weights


def _likeness(side: TokenLogps) -> Float[Tensor, " sequences"]:
    """Return the mean over tokens of log p minus the log of its expectation under the policy."""
    if side.log_sum_sq is None:
        raise ValueError("the objective needs the sum of squared probabilities at each token: TokenLogps.log_sum_sq")
    gap = (side.logp.detach() - side.log_sum_sq).masked_fill(~side.mask, 0.0)
    return gap.sum(-1) / side.lengths
