"""Objectives with a loss for each side: what the chosen is pulled to and what the rejected is pushed to are their own.

Most are a sum of two functions and so train on single completions too (``data.unpaired: true``).
"""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.cards import Card, Limit
from align.objectives.links import logistic, squared
from align.objectives.logps import PairLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import ScaledObjective, ScaledPairObjective, ScaledSidedObjective
from align.objectives.scores import log_ratio_margin, log_ratios
from align.objectives.settings import check_choice

NCA_PAIR = Card(
    title="Noise contrastive alignment, for pairs",
    loss="-log_sigma(beta*h_w) - 0.5*log_sigma(-beta*h_w) - 0.5*log_sigma(-beta*h_l)",
    d_w="beta*(sigma(-beta*h_w) - 0.5*sigma(beta*h_w))",
    d_l="0.5*beta*sigma(beta*h_l)",
    source="Chen et al., 2024, arXiv:2402.05369, with K = 2 and a hard label",
    checked="TRL 1.16",
    does="Draws the chosen to beta*h_w = log 2 from both sides; pushes the rejected ever more weakly.",
    examples=({"beta": 0.5},),
)


@OBJECTIVES.register("nca_pair", NCA_PAIR)
@dataclass(frozen=True, slots=True, kw_only=True)
class NCAPair(ScaledSidedObjective):
    """Chosen against noise, both sides as noise."""

    def chosen_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the loss of being data, and half that of being noise."""
        return logistic(self.beta * score) + 0.5 * logistic(-self.beta * score)

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return half the loss of being noise."""
        return 0.5 * logistic(-self.beta * score)


BCO_PAIR = Card(
    title="Binary classifier optimisation",
    loss="-log_sigma(beta*h_w) - log_sigma(-beta*h_l)",
    d_w="beta*sigma(-beta*h_w)",
    d_l="beta*sigma(beta*h_l)",
    source="Jung et al., 2024, arXiv:2404.04656",
    checked="TRL 1.16",
    departs="Without the running mean of rewards that the paper subtracts (nor has TRL 1.16 it), and without its "
    "density ratio weights.",
    does="Each side is classified by itself: the chosen is pulled until it is well above its reference, whatever the "
    "rejected does.",
    examples=({"beta": 0.5},),
)


@OBJECTIVES.register("bco_pair", BCO_PAIR)
@dataclass(frozen=True, slots=True, kw_only=True)
class BCOPair(ScaledSidedObjective):
    """Logistic classification of each side."""

    def chosen_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the loss of being called good."""
        return logistic(self.beta * score)

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the loss of being called bad."""
        return logistic(-self.beta * score)


SPPO_HARD = Card(
    title="Self-play preference optimisation, hard labels",
    loss="(h_w - 1/(2*beta))**2 + (h_l + 1/(2*beta))**2",
    d_w="2*(1/(2*beta) - h_w)",
    d_l="2*(1/(2*beta) + h_l)",
    source="Wu et al., 2024, arXiv:2405.00675, Eq. 4.7 with the win rates set to 1 and 0",
    checked="TRL 1.16",
    departs="The authors' code halves the sum; TRL does not, nor is it halved here.",
    does="Drives the chosen 1/(2 beta) nats above its reference and the rejected as far below: its own loss pulls the "
    "chosen up.",
    examples=({"beta": 0.02},),
)


@OBJECTIVES.register("sppo_hard", SPPO_HARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class SPPOHard(ScaledSidedObjective):
    """Squared distances of both log-ratios from plus and minus 1/(2 beta)."""

    def chosen_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the squared distance from 1/(2 beta)."""
        return squared(score, 0.5 / self.beta)

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the squared distance from -1/(2 beta)."""
        return squared(score, -0.5 / self.beta)


SPPO_CARD = Card(
    title="Self-play preference optimisation, soft win rates",
    loss="(h_w - (P - 0.5)/beta)**2 + (h_l - (Q - 0.5)/beta)**2",
    d_w="2*((P - 0.5)/beta - h_w)",
    d_l="2*(h_l - (Q - 0.5)/beta)",
    where={"P": "sigma(q_w - q_l)", "Q": "sigma(q_l - q_w)"},
    source="Wu et al., 2024, arXiv:2405.00675, Eq. 4.7",
    checked="source",
    departs="The authors' code halves the sum. Their win rates come from a preference model (win_rates: "
    "probabilities); from plain scores they are Bradley-Terry's (the default, ours).",
    does="As sppo_hard, with targets as far apart as the win rates say.",
    examples=({"beta": 0.02},),
)


@OBJECTIVES.register("sppo", SPPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class SPPO(ScaledObjective):
    """Squared distances of both log-ratios from what the win rates ask for.

    Attributes:
        win_rates: scores, win rates are the sigmoid of the gap of scores; or probabilities, the scores are win rates.
    """

    needs_scores = True
    win_rates: Literal["scores", "probabilities"] = "scores"

    def check(self) -> None:
        """Check where win rates come from."""
        check_choice("win_rates", self.win_rates, ("scores", "probabilities"))

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the sum of both squared distances."""
        chosen, rejected = log_ratios(policy, reference)
        wins = (rate.to(chosen.dtype) for rate in self._rates(policy))
        target_chosen, target_rejected = ((rate - 0.5) / self.beta for rate in wins)
        return (chosen - target_chosen).square() + (rejected - target_rejected).square()

    def score_faults(
        self, chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
    ) -> list[tuple[Bool[Tensor, " pairs"], str]]:
        """Return where scores are no win rates, where they are to be."""
        if self.win_rates == "scores":
            return []
        outside = [(scores < 0) | (scores > 1) for scores in (chosen, rejected)]
        says = "chosen_score and rejected_score must be win rates from 0 to 1; or leave win_rates out"
        return [(outside[0] | outside[1], says)]

    def _rates(self, policy: PairLogps) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        gap = policy.score_gap
        if self.win_rates == "scores":
            return torch.sigmoid(gap), torch.sigmoid(-gap)
        assert policy.chosen_scores is not None
        assert policy.rejected_scores is not None
        return policy.chosen_scores, policy.rejected_scores


APO_ZERO = Card(
    title="Anchored preference optimisation, zero",
    loss="1 - sigma(beta*h_w) + sigma(beta*h_l)",
    d_w="beta*sigma(beta*h_w)*sigma(-beta*h_w)",
    d_l="beta*sigma(beta*h_l)*sigma(-beta*h_l)",
    source="D'Oosterlinck et al., 2024, arXiv:2408.06266, Eq. 7",
    checked="TRL 1.16",
    does="Chosen up, rejected down, each fading as it moves away from its reference: for chosen answers that are "
    "better than what the model says.",
    limits=(Limit(says="is kto with a reference point of 0", of="kto"),),
    examples=({"beta": 0.5},),
)


@OBJECTIVES.register("apo_zero", APO_ZERO, aliases=("apo_zero_unpaired",))
@dataclass(frozen=True, slots=True, kw_only=True)
class APOZero(ScaledSidedObjective):
    """Both sides against their reference, in sigmoids."""

    def chosen_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return one minus the sigmoid: 1 - s(x) = s(-x)."""
        return torch.sigmoid(-self.beta * score)

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the sigmoid."""
        return torch.sigmoid(self.beta * score)


APO_DOWN = Card(
    title="Anchored preference optimisation, down",
    loss="sigma(beta*h_w) + 1 - sigma(beta*D)",
    d_w="beta*(sigma(beta*D)*sigma(-beta*D) - sigma(beta*h_w)*sigma(-beta*h_w))",
    d_l="beta*sigma(beta*D)*sigma(-beta*D)",
    source="D'Oosterlinck et al., 2024, arXiv:2408.06266, Eq. 8",
    checked="TRL 1.16",
    does="Both sides down, the rejected further: for chosen answers that are worse than what the model says. At the "
    "start the chosen is not pulled at all; its weight is negative where the margin has outgrown it.",
    examples=({"beta": 0.5},),
)


@OBJECTIVES.register("apo_down", APO_DOWN)
@dataclass(frozen=True, slots=True, kw_only=True)
class APODown(ScaledObjective):
    """The chosen below its reference, the rejected below the chosen, in sigmoids."""

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return both sigmoids."""
        chosen, rejected = log_ratios(policy, reference)
        return torch.sigmoid(self.beta * chosen) + torch.sigmoid(-self.beta * (chosen - rejected))


CAL_DPO = Card(
    title="Calibrated DPO",
    loss="-log_sigma(D) + 0.5*((h_w - 1/(2*beta))**2 + (h_l + 1/(2*beta))**2)",
    d_w="sigma(-D) + (1/(2*beta) - h_w)",
    d_l="sigma(-D) + (h_l + 1/(2*beta))",
    source="Xiao et al., 2024, arXiv:2412.14516, as in the authors' code (no beta inside the logistic term)",
    checked="source",
    does="DPO's ranking, with both log-ratios drawn to plus and minus 1/(2 beta) nats: the chosen rises instead of "
    "falling along.",
    examples=({"beta": 0.5},),
)


@OBJECTIVES.register("cal_dpo", CAL_DPO)
@dataclass(frozen=True, slots=True, kw_only=True)
class CalDPO(ScaledPairObjective):
    """Logistic loss of the margin, plus both log-ratios' squared distances from their targets.

    Attributes:
        beta: targets are 1/(2 beta) nats from the reference, > 0; 0.001 in the authors' code, with large squares.
    """

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the log-ratio margin."""
        return log_ratio_margin(policy, reference)

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the logistic loss, without beta."""
        return logistic(score)

    def regulariser(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return half the squared distances from the targets."""
        chosen, rejected = log_ratios(policy, reference)
        target = 0.5 / self.beta
        return 0.5 * (squared(chosen, target) + squared(rejected, -target))
