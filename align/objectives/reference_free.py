"""Objectives without a reference: SimPO, AlphaPO, CPO, SLiC-HF, RRHF. ORPO is in :mod:`align.objectives.odds`."""

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from align.objectives.anchors import Nll, check_nll, negative_log_likelihood
from align.objectives.base import PairObjective
from align.objectives.cards import Card, Limit
from align.objectives.links import hinge, logistic, squared
from align.objectives.logps import PairLogps
from align.objectives.numerics import bounded_exp
from align.objectives.registry import OBJECTIVES
from align.objectives.scaled import ScaledPairObjective
from align.objectives.scores import mean_margin
from align.objectives.settings import check_choice, check_finite, check_not_negative, check_positive

SIMPO_CARD = Card(
    title="Simple preference optimisation",
    loss="-log_sigma(beta*(a_bar - b_bar) - gamma)",
    d_w="(beta/n_w)*sigma(gamma - beta*(a_bar - b_bar))",
    d_l="(beta/n_l)*sigma(gamma - beta*(a_bar - b_bar))",
    source="Meng, Xia, Chen, 2024, arXiv:2405.14734",
    checked="TRL 1.16",
    departs="gamma is the paper's, not the ratio gamma/beta that its recipes set. With label_smoothing, TRL's "
    "CPOTrainer keeps the margin gamma for the swapped label; here the label is swapped and nothing else.",
    does="What is compared is what sampling sees, a token's mean. Nothing holds the policy to where it started, and "
    "the chosen is pulled n_l/n_w times as hard as the rejected is pushed: with longer chosen sides both tend to "
    "fall.",
    examples=({"beta": 10.0, "gamma": 3.0},),
)


@OBJECTIVES.register("simpo", SIMPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class SimPO(ScaledPairObjective):
    """Logistic loss of the difference of mean log-probabilities, with a target margin.

    Attributes:
        beta: scale of the difference, > 0; 2 to 10 in the authors' recipes.
        gamma: target margin, in units of beta times nats a token; 0.1 to 0.8 times beta in the authors' recipes.
    """

    needs_reference = False
    needs_lengths = True
    beta: float = 2.0
    gamma: float = 1.0

    def check(self) -> None:
        """Check gamma."""
        check_finite(gamma=self.gamma)

    @property
    def mean_rewards(self) -> bool:
        """Rewards are a token."""
        return True

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the difference of mean log-probabilities."""
        return mean_margin(policy)

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the logistic loss of what the score is beyond the target."""
        return logistic(self.beta * score - self.gamma)


ALPHAPO_CARD = Card(
    title="Alpha preference optimisation",
    loss="-log_sigma(u)",
    d_w="(beta/n_w)*sigma(-u)*exp(-alpha*a_bar)",
    d_l="(beta/n_l)*sigma(-u)*exp(-alpha*b_bar)",
    where={"u": "beta*((1 - exp(-alpha*a_bar))/alpha - (1 - exp(-alpha*b_bar))/alpha) - gamma"},
    source="Gupta et al., 2025, arXiv:2501.03884",
    checked="TRL 1.16",
    does="SimPO with a reward that is bent: alpha > 0 weighs unlikely completions more. Pairs of unlikely sides move "
    "most.",
    diverges="e^(-alpha*a_bar) for very unlikely completions: bounded_exp.",
    limits=(
        Limit(
            says="tends to SimPO as alpha goes to 0",
            at={"alpha": 1e-7, "beta": 2.0, "gamma": 1.0},
            of="simpo",
            settings={"beta": 2.0, "gamma": 1.0},
            within=1e-4,
        ),
    ),
    examples=({"beta": 5.0, "gamma": 0.5, "alpha": -0.3},),
)


@OBJECTIVES.register("alphapo", ALPHAPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class AlphaPO(SimPO):
    """SimPO with the reward ``(1 - p^-alpha) / alpha``, p the geometric mean of the tokens' probabilities.

    Attributes:
        alpha: bend of the reward, not 0 (that is simpo); 0.25 is a default of ours.
    """

    alpha: float = 0.25

    def check(self) -> None:
        """Check alpha and gamma."""
        SimPO.check(self)
        check_finite(alpha=self.alpha)
        if self.alpha == 0:
            raise ValueError("alpha must not be 0; the limit is objective simpo")

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the difference of bent rewards."""
        return self._reward(policy.mean_chosen) - self._reward(policy.mean_rejected)

    def _reward(self, mean_logps: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        return (1 - bounded_exp(-self.alpha * mean_logps)) / self.alpha


@dataclass(frozen=True, slots=True, kw_only=True)
class AnchoredObjective(PairObjective):
    """Abstract: no reference, and the chosen's negative log-likelihood added.

    Attributes:
        nll_weight: weight of the chosen's negative log-likelihood, at least 0.
        nll: how its tokens count: sum, mean, or batch_mean (over the batch's tokens, as TRL).
    """

    needs_reference = False
    nll_weight: float = 1.0
    nll: Nll = "sum"

    def __post_init__(self) -> None:
        check_not_negative(nll_weight=self.nll_weight)
        check_nll(self.nll)
        self.check()

    def check(self) -> None:
        """Check the other settings; for subclasses."""

    @property
    def needs_lengths(self) -> bool:  # type: ignore[override]
        """Whether the likelihood is a mean, or the score is."""
        return self.nll != "sum" or self.mean_rewards

    @property
    def couples_pairs(self) -> bool:  # type: ignore[override]
        """Whether lengths of other pairs count."""
        return self.nll == "batch_mean"

    def anchor(self, policy: PairLogps) -> Float[Tensor, " pairs"]:
        """Return the weighted negative log-likelihood of the chosen."""
        return self.nll_weight * negative_log_likelihood(policy.chosen_side, self.nll)


CPO_CARD = Card(
    title="Contrastive preference optimisation",
    loss="-log_sigma(beta*m) - nll_weight*a/k",
    d_w="beta*sigma(-beta*m) + nll_weight/k",
    d_l="beta*sigma(-beta*m)",
    source="Xu et al., 2024, arXiv:2401.08417, Eq. 3 (preference term)",
    checked="TRL 1.16",
    departs="Defaults are the paper's: a summed log-likelihood of weight 1. TRL's CPOTrainer averages it over the "
    "tokens of the batch (nll: batch_mean). loss_type hinge and ipo are TRL's, ipo of mean log-probabilities.",
    does="The likelihood term pulls the chosen up whatever the margin; the rejected rises along where the two are "
    "alike: both up.",
    examples=({"beta": 0.5, "nll_weight": 0.3, "nll": "mean"}, {"nll": "batch_mean"}),
)


@OBJECTIVES.register("cpo", CPO_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class CPO(AnchoredObjective):
    """Logistic loss of the plain margin, and the chosen's likelihood.

    Attributes:
        beta: scale of the margin, > 0.
        loss_type: sigmoid; hinge, max(0, 1 - beta m); or ipo, (a_bar - b_bar - 1/(2 beta))^2.
    """

    beta: float = 0.1
    loss_type: Literal["sigmoid", "hinge", "ipo"] = "sigmoid"

    def check(self) -> None:
        """Check beta and the link."""
        check_positive(beta=self.beta)
        check_choice("loss_type", self.loss_type, ("sigmoid", "hinge", "ipo"))

    @property
    def reward_scale(self) -> float:
        """Implicit rewards are beta times the log-probabilities."""
        return self.beta

    @property
    def mean_rewards(self) -> bool:
        """Rewards are a token where the score is: for ipo."""
        return self.loss_type == "ipo"

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the margin of log-probabilities; of mean ones for ipo."""
        return mean_margin(policy) if self.loss_type == "ipo" else policy.chosen - policy.rejected

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the loss that ``loss_type`` names."""
        if self.loss_type == "ipo":
            return squared(score, 1 / (2 * self.beta))
        return (hinge if self.loss_type == "hinge" else logistic)(self.beta * score)


SLIC_HF = Card(
    title="Sequence likelihood calibration from human feedback",
    loss="relu(delta - m) - nll_weight*a/k",
    d_w="step(delta - m) + nll_weight/k",
    d_l="step(delta - m)",
    source="Zhao et al., 2023, arXiv:2305.10425, rank loss; delta = 1 and weight 0.1 as in HALOs",
    checked="source",
    departs="The likelihood is of the chosen completion, as in HALOs; a target of its own for it is not provided for.",
    does="Opens a margin of delta nats, then only the likelihood term is left, which pulls the chosen up.",
    examples=({"delta": 5.0, "nll_weight": 0.5, "nll": "mean"},),
)


@OBJECTIVES.register("slic_hf", SLIC_HF)
@dataclass(frozen=True, slots=True, kw_only=True)
class SLiCHF(AnchoredObjective):
    """Hinge on the plain margin, and the chosen's likelihood.

    Attributes:
        delta: margin that is asked for, in nats; at least 0.
    """

    delta: float = 1.0
    nll_weight: float = 0.1

    def check(self) -> None:
        """Check delta."""
        check_not_negative(delta=self.delta)

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the margin of log-probabilities."""
        return policy.chosen - policy.rejected

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return what the margin falls short of delta."""
        return torch.relu(self.delta - score)


RRHF_CARD = Card(
    title="Rank responses to align, for pairs",
    loss="relu(b_bar - a_bar) - nll_weight*a/k",
    d_w="step(b_bar - a_bar)/n_w + nll_weight/k",
    d_l="step(b_bar - a_bar)/n_l",
    source="Yuan et al., 2023, arXiv:2304.05302, with two responses",
    checked="source",
    departs="The authors' code weighs the ranking 100 times and averages the likelihood over tokens: nll_weight 0.01 "
    "with nll: mean, up to scale.",
    does="Pairs in the right order are left to the likelihood term, which pulls the chosen up and similar rejected "
    "ones along.",
    examples=({"nll_weight": 0.01, "nll": "mean"},),
)


@OBJECTIVES.register("rrhf", RRHF_CARD)
@dataclass(frozen=True, slots=True, kw_only=True)
class RRHF(AnchoredObjective):
    """What the mean log-probabilities are in the wrong order by, and the chosen's likelihood."""

    @property
    def mean_rewards(self) -> bool:
        """Rewards are a token."""
        return True

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the difference of mean log-probabilities."""
        return mean_margin(policy)

    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return what the score is below 0."""
        return torch.relu(-score)
