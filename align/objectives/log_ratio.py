"""Other links of the log-ratio margin: hinge, IPO in both conventions, DiscoPOP, and DPO a token.

Sources and departures are on each card.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from align.objectives.cards import Card, Limit
from align.objectives.divergences import LogRatioObjective, ScaledLogRatioObjective, TokenMeans
from align.objectives.dpo import dpo_loss
from align.objectives.links import hinge, squared
from align.objectives.numerics import bounded_exp
from align.objectives.registry import OBJECTIVES
from align.objectives.settings import check_positive

HINGE = Card(
    title="Hinge on the log-ratio margin (RSO, normalised SLiC)",
    loss="relu(1 - beta*D)",
    d_w="beta*step(1 - beta*D)",
    d_l="beta*step(1 - beta*D)",
    source="Liu et al., 2023, arXiv:2309.06657 (hinge loss on normalised log-ratios)",
    checked="TRL 1.16",
    does="Like DPO until the margin reaches 1/beta nats, then nothing: pairs that are settled are left alone.",
    examples=({"beta": 0.02},),
)


@OBJECTIVES.register("hinge", HINGE)
@dataclass(frozen=True, slots=True, kw_only=True)
class Hinge(ScaledLogRatioObjective):
    """``max(0, 1 - beta D)``: the margin that is asked for is 1/beta nats."""

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the hinge of beta times the margin."""
        return hinge(self.beta * score)


IPO_CARD = Card(
    title="Identity preference optimisation, a token",
    loss="(D_bar - 1/(2*tau))**2",
    d_w="2*(1/(2*tau) - D_bar)/n_w",
    d_l="2*(1/(2*tau) - D_bar)/n_l",
    source="Azar et al., 2023, arXiv:2310.12036, Eq. 17, with log-ratios averaged over tokens",
    checked="TRL 1.16",
    departs="The paper's equation has summed log-ratios (`ipo_sum`); averaged ones are what TRL trains, whose source "
    "says that the authors confirmed them and that the paper's results are of this form.",
    does="Drives the mean margin to 1/(2 tau) nats a token and back from beyond it. The chosen is pulled n_l/n_w times "
    "as hard as the rejected is pushed: pairs with a longer chosen side tend to fall on both sides.",
    limits=(Limit(says="is ipo_sum on completions of one token", of="ipo_sum", tokens=1),),
    examples=({"tau": 0.01},),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class SquaredObjective(LogRatioObjective):
    """Abstract: the squared distance of the score from 1/(2 tau).

    Attributes:
        tau: the score aims at 1/(2 tau): nats, or nats a token; > 0. TRL calls it beta.
    """

    tau: float = 0.1

    def check(self) -> None:
        """Check tau."""
        check_positive(tau=self.tau)

    @property
    def reward_scale(self) -> float:
        """Implicit rewards are tau times the log-ratios."""
        return self.tau

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the squared distance from the target margin."""
        return squared(score, 1 / (2 * self.tau))


@OBJECTIVES.register("ipo", IPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class IPO(TokenMeans, SquaredObjective):
    """``(D_bar - 1/(2 tau))^2``, log-ratios divided by lengths."""


IPO_SUM = Card(
    title="Identity preference optimisation, as in the paper",
    loss="(D - 1/(2*tau))**2",
    d_w="2*(1/(2*tau) - D)",
    d_l="2*(1/(2*tau) - D)",
    source="Azar et al., 2023, arXiv:2310.12036, Eq. 17",
    checked="source",
    does="Drives the summed margin to 1/(2 tau) nats and back from beyond it; both sides with one weight, so that who "
    "falls is decided by the gradients alone.",
    examples=({"tau": 0.02},),
)


@OBJECTIVES.register("ipo_sum", IPO_SUM)
@dataclass(frozen=True, slots=True, kw_only=True)
class IPOSum(SquaredObjective):
    """``(D - 1/(2 tau))^2``, log-ratios summed."""


DISCOPOP = Card(
    title="Discovered preference optimisation (log-ratio modulated)",
    loss="(1 - g)*(-log_sigma(x)) + g*exp(-x)",
    d_w="beta*(sigma(-x)*(1 - g) + exp(-x)*g - (g*(1 - g)/tau)*(exp(-x) + log_sigma(x)))",
    d_l="beta*(sigma(-x)*(1 - g) + exp(-x)*g - (g*(1 - g)/tau)*(exp(-x) + log_sigma(x)))",
    where={"x": "beta*D", "g": "sigma(x/tau)"},
    source="Lu et al., 2024, arXiv:2406.08414, Eq. 5",
    checked="TRL 1.16",
    does="Logistic for pairs in the wrong order, exponential for those in the right one; not monotone in between: near "
    "a margin of 0 the weight changes its sign. At the start it is -0.78 beta with tau = 0.05, so that pairs are "
    "first pulled the wrong way.",
    diverges="e^-x for very negative x where tau is above 1: bounded_exp.",
    examples=({"beta": 0.3, "tau": 0.5},),
)


@OBJECTIVES.register("discopop", DISCOPOP)
@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoPOP(ScaledLogRatioObjective):
    """A blend of the logistic and the exponential loss, by the margin itself.

    Attributes:
        tau: width of the blend between the two, > 0; 0.05 in the paper.
    """

    tau: float = 0.05

    def check(self) -> None:
        """Check tau."""
        check_positive(tau=self.tau)

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the blend; the exponential part is one exponent, so that 0 times infinity cannot come up."""
        x = self.beta * score
        logistic_part = -torch.sigmoid(-x / self.tau) * F.logsigmoid(x)
        return logistic_part + bounded_exp(F.logsigmoid(x / self.tau) - x)


SIGMOID_NORM = Card(
    title="DPO a token (length-normalised)",
    loss="-log_sigma(beta*D_bar)",
    d_w="(beta/n_w)*sigma(-beta*D_bar)",
    d_l="(beta/n_l)*sigma(-beta*D_bar)",
    source="Lambert et al., 2024, arXiv:2411.15124 (length-normalised DPO)",
    checked="TRL 1.16",
    does="DPO on log-ratios a token: length no longer makes a margin. The chosen is pulled n_l/n_w times as hard as "
    "the rejected is pushed. beta must be larger than DPO's, about as many times as completions have tokens.",
    limits=(Limit(says="is DPO on completions of one token", of="dpo", tokens=1),),
    examples=({"beta": 5.0},),
)


@OBJECTIVES.register("sigmoid_norm", SIGMOID_NORM)
@dataclass(frozen=True, slots=True, kw_only=True)
class SigmoidNorm(TokenMeans, ScaledLogRatioObjective):
    """DPO's link of the difference of mean log-ratios; beta is 5 in Tulu 3."""

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the logistic loss of beta times the score."""
        return dpo_loss(score, beta=self.beta)
