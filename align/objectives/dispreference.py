"""Distributional dispreference: Duan et al., 2024, arXiv:2403.03419, Eq. 3.

A response that people marked as bad is held against what the model itself says: ``h_w`` is the mean log-ratio of K
samples, which :class:`~align.trainers.d2o.D2OTrainer` puts on the chosen side; with one response on it, as in an
ordinary pair, ``h_w`` is that one's.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.cards import Card, Limit
from align.objectives.links import logistic
from align.objectives.logps import PairLogps, SequenceLogps, TokenLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import ScaledPairObjective
from align.objectives.scores import log_ratios
from align.objectives.settings import check_positive

CARD = Card(
    title="Distributional dispreference optimisation",
    loss="-log_sigma(beta*h_w - alpha*h_l)",
    d_w="beta*sigma(alpha*h_l - beta*h_w)",
    d_l="alpha*sigma(alpha*h_l - beta*h_w)",
    source="Duan et al., 2024, arXiv:2403.03419, Eq. 3",
    checked="derived",
    does="Holds a bad response against the mean of K samples of the model itself (the trainer's; their h_w is a mean). "
    "The loss is at most the mean of K DPO losses, one a sample, and fades as the bad response falls.",
    limits=(
        Limit(says="is DPO where alpha is beta", at={"beta": 0.3, "alpha": 0.3}, of="dpo", settings={"beta": 0.3}),
    ),
    examples=({"beta": 0.2, "alpha": 0.5},),
)


@OBJECTIVES.register("d2o", CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class D2O(ScaledPairObjective):
    """The logistic loss of samples against a negative, each side with a scale of its own.

    Attributes:
        beta: scale of the samples' mean log-ratio, > 0.
        alpha: scale of the negative's log-ratio, > 0.
    """

    alpha: float = 0.1

    def check(self) -> None:
        """Check alpha."""
        check_positive(alpha=self.alpha)

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return u, the scaled log-ratio of the samples less that of the negative."""
        chosen, rejected = log_ratios(policy, reference)
        return self.beta * chosen - self.alpha * rejected

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the logistic loss."""
        return logistic(score)

    def rewards(
        self, policy: PairLogps, reference: PairLogps | None
    ) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """Return the two parts of u."""
        chosen, rejected = log_ratios(policy, reference)
        return self.beta * chosen, self.alpha * rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class MeanTokenLogps(TokenLogps):
    """Token log-probabilities of groups of sequences, which count as their mean.

    Attributes:
        count: sequences of a group, one behind the other in rows of ``logp`` and ``mask``.
    """

    count: int

    def summed(self) -> SequenceLogps:
        """Return the mean log-probability of each group's sequences, and their mean length, rounded."""
        plain = TokenLogps(logp=self.logp, mask=self.mask).summed()
        lengths = plain.lengths.view(-1, self.count).double().mean(1).round().clamp(min=1).long()
        return SequenceLogps(logps=plain.logps.view(-1, self.count).mean(1), lengths=lengths)
