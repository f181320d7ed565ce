"""Log-ratio objectives that expect a share of the labels to be wrong: cDPO, robust DPO, EXO for pairs.

Each has ``label_smoothing`` of its own, whose meaning differs; the other objectives take it as an option of the recipe.
"""

import math
from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from align.objectives.cards import Card, Limit
from align.objectives.divergences import ScaledLogRatioObjective
from align.objectives.links import logistic, smoothed_logistic
from align.objectives.registry import OBJECTIVES
from align.objectives.settings import check_smoothing


@dataclass(frozen=True, slots=True, kw_only=True)
class NoisyObjective(ScaledLogRatioObjective):
    """Abstract: one with a share of wrong labels.

    Attributes:
        label_smoothing: share of pairs whose label is taken to be wrong, at least 0 and below 0.5.
    """

    label_smoothing: float = 0.1

    def check(self) -> None:
        """Check the share."""
        check_smoothing(self.label_smoothing)


CDPO = Card(
    title="Conservative DPO",
    loss="-(1 - label_smoothing)*log_sigma(beta*D) - label_smoothing*log_sigma(-beta*D)",
    d_w="beta*(sigma(-beta*D) - label_smoothing)",
    d_l="beta*(sigma(-beta*D) - label_smoothing)",
    source="Mitchell, 2023, https://ericmitchell.ai/cdpo.pdf, Eq. 3; HALOs takes 0.2",
    checked="source",
    does="Stops at the margin at which the model is as sure as the labels are, log((1-eps)/eps)/beta nats, and pulls "
    "pairs back from beyond it.",
    limits=(Limit(says="is DPO at label_smoothing = 0", at={"label_smoothing": 0.0}, of="dpo"),),
    examples=({"beta": 0.4, "label_smoothing": 0.25},),
)


@OBJECTIVES.register("cdpo", CDPO)
@dataclass(frozen=True, slots=True, kw_only=True)
class ConservativeDPO(NoisyObjective):
    """DPO with smoothed labels."""

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the expected logistic loss over labels that may be wrong."""
        return smoothed_logistic(self.beta * score, self.label_smoothing)


ROBUST = Card(
    title="Robust DPO",
    loss="(-(1 - label_smoothing)*log_sigma(beta*D) + label_smoothing*log_sigma(-beta*D))/(1 - 2*label_smoothing)",
    d_w="beta*((1 - label_smoothing)*sigma(-beta*D) + label_smoothing*sigma(beta*D))/(1 - 2*label_smoothing)",
    d_l="beta*((1 - label_smoothing)*sigma(-beta*D) + label_smoothing*sigma(beta*D))/(1 - 2*label_smoothing)",
    source="Chowdhury, Kini, Natarajan, 2024, arXiv:2403.00409",
    checked="TRL 1.16",
    does="An unbiased estimate of DPO on clean labels from noisy ones. Its pull never fades: beta*eps/(1-2*eps) is "
    "left at any margin, so that both sides can drift without end.",
    limits=(Limit(says="is DPO at label_smoothing = 0", at={"label_smoothing": 0.0}, of="dpo"),),
    examples=({"beta": 0.4, "label_smoothing": 0.3},),
)


@OBJECTIVES.register("robust", ROBUST)
@dataclass(frozen=True, slots=True, kw_only=True)
class RobustDPO(NoisyObjective):
    """DPO that subtracts what wrong labels add on average."""

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the debiased logistic loss."""
        epsilon, z = self.label_smoothing, self.beta * score
        return ((1 - epsilon) * logistic(z) - epsilon * logistic(-z)) / (1 - 2 * epsilon)


EXO_PAIR = Card(
    title="Efficient exact optimisation, for pairs",
    loss="q*(log_sigma(x) - log(1 - label_smoothing)) + (1 - q)*(log_sigma(-x) - log(label_smoothing))",
    d_w="-beta*q*(1 - q)*(x - log((1 - label_smoothing)/label_smoothing))",
    d_l="-beta*q*(1 - q)*(x - log((1 - label_smoothing)/label_smoothing))",
    where={"x": "beta*D", "q": "sigma(x)"},
    source="Ji et al., 2024, arXiv:2402.00856, Eq. 16",
    checked="TRL 1.16",
    does="The reverse KL from the model's preference to the smoothed label. Its pull fades at both ends: pairs far in "
    "the wrong order are given up, and beyond log((1-eps)/eps)/beta nats pairs are pulled back.",
    examples=({"beta": 0.4, "label_smoothing": 0.05},),
)


@OBJECTIVES.register("exo_pair", EXO_PAIR)
@dataclass(frozen=True, slots=True, kw_only=True)
class ExoPair(NoisyObjective):
    """The reverse KL between the model's preference and the smoothed label.

    Attributes:
        label_smoothing: the label is (1 - eps, eps), eps greater than 0 and below 0.5; 1e-3 where not given.
    """

    label_smoothing: float = 1e-3

    def check(self) -> None:
        """Check the share, which must not be 0: log eps is part of the loss."""
        check_smoothing(self.label_smoothing, zero=False)

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the KL from (q, 1-q) to (1-eps, eps), q being the sigmoid of beta times the score."""
        x = self.beta * score
        for_chosen = x.sigmoid() * (F.logsigmoid(x) - math.log1p(-self.label_smoothing))
        return for_chosen + (-x).sigmoid() * (F.logsigmoid(-x) - math.log(self.label_smoothing))
