"""DPO with something added inside its sigmoid: length, a floor under the chosen, an offset, a weaker rejected side."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.cards import Card, Limit
from align.objectives.links import logistic
from align.objectives.logps import PairLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import LogisticObjective, ScaledPairObjective
from align.objectives.scores import log_ratio_margin, log_ratios
from align.objectives.settings import check_choice, check_not_negative, check_positive

R_DPO = Card(
    title="Length-regularised DPO",
    loss="-log_sigma(beta*D + alpha*(n_w - n_l))",
    d_w="beta*sigma(-(beta*D + alpha*(n_w - n_l)))",
    d_l="beta*sigma(-(beta*D + alpha*(n_w - n_l)))",
    source="Park et al., 2024, arXiv:2403.19159",
    checked="source",
    departs="The sign is that of the authors' code, and follows from a reward that length is subtracted from: a longer "
    "chosen side counts as margin already, and is pulled less.",
    does="As DPO; pairs whose chosen side is the longer one are taken to be settled sooner, so that length is learned "
    "less.",
    limits=(Limit(says="is DPO at alpha = 0", at={"alpha": 0.0}, of="dpo"),),
    examples=({"beta": 0.3, "alpha": 0.2},),
)


@OBJECTIVES.register("r_dpo", R_DPO)
@dataclass(frozen=True, slots=True, kw_only=True)
class RDPO(LogisticObjective):
    """DPO under a reward minus alpha times the length.

    Attributes:
        alpha: price of a token in units of beta times nats; at least 0. 0.05 is a default of ours.
    """

    needs_lengths = True
    alpha: float = 0.05

    def check(self) -> None:
        """Check alpha."""
        check_not_negative(alpha=self.alpha)

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the margin, with lengths counted as nats at their price."""
        tokens = (policy.chosen_lengths - policy.rejected_lengths).to(policy.chosen.dtype)
        return log_ratio_margin(policy, reference) + self.alpha / self.beta * tokens


DPOP_CARD = Card(
    title="DPO-positive (Smaug)",
    loss="-log_sigma(beta*(D - lam*relu(a0 - a)))",
    d_w="beta*sigma(-beta*(D - lam*relu(a0 - a)))*(1 + lam*step(a0 - a))",
    d_l="beta*sigma(-beta*(D - lam*relu(a0 - a)))",
    source="Pal et al., 2024, arXiv:2402.13228",
    checked="source",
    does="As DPO while the chosen is above its reference; below it, the chosen is pulled 1 + lambda times as hard. It "
    "hovers around the reference instead of falling.",
    limits=(Limit(says="is DPO at lam = 0", at={"lam": 0.0}, of="dpo"),),
    examples=({"beta": 0.3, "lam": 5.0},),
)


@OBJECTIVES.register("dpop", DPOP_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class DPOP(LogisticObjective):
    """DPO with a price on a chosen log-probability below the reference's.

    Attributes:
        lam: nats of margin that a nat below the reference costs; at least 0. 50 in the paper, 5 and 500 tried there.
    """

    lam: float = 50.0

    def check(self) -> None:
        """Check lambda."""
        check_not_negative(lam=self.lam)

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the margin minus the price of what the chosen lost."""
        lost = torch.relu(-log_ratios(policy, reference)[0])
        return log_ratio_margin(policy, reference) - self.lam * lost


ODPO_CARD = Card(
    title="DPO with an offset",
    loss="-log_sigma(beta*D - alpha*log(q_w - q_l))",
    d_w="beta*sigma(alpha*log(q_w - q_l) - beta*D)",
    d_l="beta*sigma(alpha*log(q_w - q_l) - beta*D)",
    source="Amini, Vieira, Cotterell, 2024, arXiv:2402.10571; log and alpha = 1 as in the authors' code",
    checked="source",
    does="As DPO, with a margin to reach that grows with how much better the chosen is scored.",
    limits=(Limit(says="is DPO at alpha = 0", at={"alpha": 0.0}, of="dpo"),),
    examples=({"beta": 0.3, "alpha": 0.5},),
)


@OBJECTIVES.register("odpo", ODPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class ODPO(ScaledPairObjective):
    """DPO with an offset from the scores of the completions.

    Attributes:
        alpha: weight of the offset, at least 0; 1 in the authors' code.
        scale: log, the offset is the logarithm of the score gap; or linear, the gap itself.
    """

    needs_scores = True
    alpha: float = 1.0
    scale: Literal["log", "linear"] = "log"

    def check(self) -> None:
        """Check alpha and the scale."""
        check_not_negative(alpha=self.alpha)
        check_choice("scale", self.scale, ("log", "linear"))

    def score_faults(
        self, chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
    ) -> list[tuple[Bool[Tensor, " pairs"], str]]:
        """Return where the gap of scores has no logarithm."""
        if self.scale == "linear":
            return []
        says = "chosen_score must be above rejected_score for the log of their gap; leave it out, or set scale: linear"
        return [(chosen <= rejected, says)]

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return beta times the margin, minus the offset."""
        gap = policy.score_gap.to(policy.chosen.dtype)
        offset = self.alpha * (gap.log() if self.scale == "log" else gap)
        return self.beta * log_ratio_margin(policy, reference) - offset

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the logistic loss."""
        return logistic(score)


DPO_SHIFT = Card(
    title="DPO-Shift",
    loss="-log_sigma(beta*h_w - lam*beta*h_l)",
    d_w="beta*sigma(-beta*(h_w - lam*h_l))",
    d_l="lam*beta*sigma(-beta*(h_w - lam*h_l))",
    source="Yang et al., 2025, arXiv:2502.07599, as in the authors' code",
    checked="source",
    departs="The factor is constant; the paper also lets it rise or fall linearly over training.",
    does="The rejected is pushed lambda times as hard as the chosen is pulled: the chosen falls less, the margin grows "
    "less.",
    limits=(Limit(says="is DPO at lam = 1", at={"lam": 1.0}, of="dpo"),),
    examples=({"beta": 0.3, "lam": 0.75},),
)


@OBJECTIVES.register("dpo_shift", DPO_SHIFT)
@dataclass(frozen=True, slots=True, kw_only=True)
class DPOShift(LogisticObjective):
    """DPO with a weaker rejected side.

    Attributes:
        lam: factor of the rejected log-ratio, > 0; 0.5 to 1 in the authors' runs.
    """

    lam: float = 0.95

    def check(self) -> None:
        """Check lambda."""
        check_positive(lam=self.lam)

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the chosen log-ratio minus lambda times the rejected one."""
        chosen, rejected = log_ratios(policy, reference)
        return chosen - self.lam * rejected
