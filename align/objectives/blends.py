"""Published mixtures under their own names: Iterative RPO and MPO. Any other is a list in the recipe."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.cards import Card, Limit
from align.objectives.dpo import dpo_loss
from align.objectives.logps import PairLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import LogisticObjective, ScaledObjective
from align.objectives.scores import log_ratio_margin
from align.objectives.settings import check_not_negative
from align.objectives.two_sided import BCOPair

ITERATIVE_RPO = Card(
    title="Iterative reasoning preference optimisation",
    loss="-log_sigma(beta*D) - alpha*a_bar",
    d_w="beta*sigma(-beta*D) + alpha/n_w",
    d_l="beta*sigma(-beta*D)",
    source="Pang et al., 2024, arXiv:2404.19733; TRL: loss_type [sigmoid, sft] with weights [1, alpha]",
    checked="derived",
    departs="One round of it: sampling and pairing anew are for the user. TRL's likelihood is a mean over the batch's "
    "tokens.",
    does="DPO with the chosen's likelihood beside it, so that the chosen does not fall while the margin grows.",
    limits=(Limit(says="is DPO at alpha = 0", at={"alpha": 0.0}, of="dpo"),),
    examples=({"beta": 0.3, "alpha": 0.2},),
)


@OBJECTIVES.register("iterative_rpo", ITERATIVE_RPO)
@dataclass(frozen=True, slots=True, kw_only=True)
class IterativeRPO(LogisticObjective):
    """DPO plus the chosen's mean negative log-likelihood.

    Attributes:
        alpha: weight of the likelihood, at least 0; 1 in the paper.
    """

    needs_lengths = True
    alpha: float = 1.0

    def check(self) -> None:
        """Check alpha."""
        check_not_negative(alpha=self.alpha)

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the log-ratio margin."""
        return log_ratio_margin(policy, reference)

    def anchor(self, policy: PairLogps) -> Float[Tensor, " pairs"]:
        """Return the weighted likelihood term."""
        return -self.alpha * policy.mean_chosen


MPO_CARD = Card(
    title="Mixed preference optimisation",
    loss="-preference_weight*log_sigma(beta*D) - quality_weight*(log_sigma(beta*h_w) + log_sigma(-beta*h_l)) - "
    "generation_weight*a_bar",
    d_w="preference_weight*beta*sigma(-beta*D) + quality_weight*beta*sigma(-beta*h_w) + generation_weight/n_w",
    d_l="preference_weight*beta*sigma(-beta*D) + quality_weight*beta*sigma(beta*h_l)",
    source="Wang et al., 2024, arXiv:2411.10442; TRL: loss_type [sigmoid, bco_pair, sft], weights [0.8, 0.2, 1]",
    checked="derived",
    departs="The quality term has no running mean of rewards, as in TRL 1.16, whose likelihood is a mean over the "
    "batch's tokens.",
    does="DPO for the order, a classifier of each side for the level, likelihood for the chosen: the chosen is held up "
    "twice.",
    limits=(
        Limit(
            says="is DPO where the other weights are 0",
            at={"preference_weight": 1.0, "quality_weight": 0.0, "generation_weight": 0.0},
            of="dpo",
        ),
        Limit(
            says="is bco_pair where the other weights are 0",
            at={"preference_weight": 0.0, "quality_weight": 1.0, "generation_weight": 0.0},
            of="bco_pair",
        ),
    ),
    examples=({"beta": 0.3, "preference_weight": 0.5, "quality_weight": 0.4, "generation_weight": 0.1},),
)


@OBJECTIVES.register("mpo", MPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class MPO(ScaledObjective):
    """DPO, a classifier of each side, and the chosen's mean negative log-likelihood.

    Attributes:
        preference_weight: weight of DPO, at least 0.
        quality_weight: weight of the classifier (bco_pair), at least 0.
        generation_weight: weight of the likelihood, at least 0.
    """

    needs_lengths = True
    preference_weight: float = 0.8
    quality_weight: float = 0.2
    generation_weight: float = 1.0

    def check(self) -> None:
        """Check the weights."""
        check_not_negative(
            preference_weight=self.preference_weight,
            quality_weight=self.quality_weight,
            generation_weight=self.generation_weight,
        )

    def anchor(self, policy: PairLogps) -> Float[Tensor, " pairs"]:
        """Return the weighted likelihood term."""
        return -self.generation_weight * policy.mean_chosen

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the weighted sum of the three."""
        preference = dpo_loss(log_ratio_margin(policy, reference), beta=self.beta)
        quality = BCOPair(beta=self.beta)(policy, reference)
        return self.preference_weight * preference + self.quality_weight * quality + self.anchor(policy)
