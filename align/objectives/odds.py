"""Odds ratio preference optimisation: Hong, Lee, Thorne, 2024, arXiv:2403.07691, Eq. 4 and 7.

Departures are on the card: three ways to count the tokens of the likelihood term.
"""

from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from align.objectives.anchors import negative_log_likelihood
from align.objectives.base import PairObjective
from align.objectives.cards import Card, Limit
from align.objectives.links import logistic
from align.objectives.logps import PairLogps
from align.objectives.numerics import log_odds
from align.objectives.registry import OBJECTIVES
from align.objectives.settings import check_choice, check_not_negative

OrpoNll = Literal["mean", "batch_mean", "batch_mean_with_prompt"]

ORPO_CARD = Card(
    title="Odds ratio preference optimisation",
    loss="-a/k - lam*log_sigma(u)",
    d_w="1/k + lam*sigma(-u)/(n_w*(1 - exp(a_bar)))",
    d_l="lam*sigma(-u)/(n_l*(1 - exp(b_bar)))",
    where={"u": "(a_bar - log1mexp(a_bar)) - (b_bar - log1mexp(b_bar))"},
    source="Hong, Lee, Thorne, 2024, arXiv:2403.07691, Eq. 4 and 7",
    checked="TRL 1.16",
    departs="The likelihood term is a mean over each completion's tokens. TRL's ORPOTrainer averages over the tokens "
    "of the batch, prompts included (nll: batch_mean_with_prompt).",
    does="Fine-tunes on the chosen and widens the odds ratio a little: the chosen rises, and the rejected with it "
    "where the two are alike.",
    diverges="log(1 - p) where a completion's mean probability is 1: the tangent at log p = -1e-8.",
    limits=(Limit(says="is sft at lam = 0", at={"lam": 0.0}, of="sft"),),
    examples=({"lam": 1.0}, {"nll": "batch_mean"}),
)


@OBJECTIVES.register("orpo", ORPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class ORPO(PairObjective):
    """The chosen's likelihood, and the log odds ratio of the mean probabilities.

    Attributes:
        lam: weight of the odds ratio, at least 0. TRL calls it beta.
        nll: how tokens of the likelihood count: mean; batch_mean, over the batch's tokens; or batch_mean_with_prompt,
            over those and the prompts'.
    """

    needs_reference = False
    needs_lengths = True
    lam: float = 0.1
    nll: OrpoNll = "mean"

    def __post_init__(self) -> None:
        check_not_negative(lam=self.lam)
        check_choice("nll", self.nll, ("mean", "batch_mean", "batch_mean_with_prompt"))

    @property
    def needs_prompt(self) -> bool:  # type: ignore[override]
        """Whether prompt tokens count."""
        return self.nll == "batch_mean_with_prompt"

    @property
    def couples_pairs(self) -> bool:  # type: ignore[override]
        """Whether lengths of other pairs count."""
        return self.nll != "mean"

    @property
    def mean_rewards(self) -> bool:
        """Rewards are a token."""
        return True

    @property
    def reward_scale(self) -> float:
        """Implicit rewards are lambda times mean log-probabilities."""
        return self.lam

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the log of the ratio of the odds, of geometric means of the tokens' probabilities."""
        return log_odds(policy.mean_chosen) - log_odds(policy.mean_rejected)

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return lambda times the logistic loss."""
        return self.lam * logistic(score)

    def anchor(self, policy: PairLogps) -> Float[Tensor, " pairs"]:
        """Return the negative log-likelihood of the chosen, prompt tokens among it where ``nll`` says so.

        Raises:
            ValueError: if prompt tokens count and come without log-probabilities.
        """
        if self.nll != "batch_mean_with_prompt":
            return negative_log_likelihood(policy.chosen_side, self.nll)
        if policy.prompt is None:
            raise ValueError("nll batch_mean_with_prompt needs the prompts' log-probabilities: PairTokenLogps.prompt")
        tokens = (policy.prompt.lengths + policy.chosen_lengths).to(policy.chosen.dtype).mean()
        return -(policy.prompt.logps + policy.chosen) / tokens
