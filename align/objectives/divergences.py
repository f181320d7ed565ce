r"""f-divergences in the place of the reverse KL: Wang et al., 2023, "Beyond Reverse KL", arXiv:2309.16240.

A policy that maximises reward minus a divergence :math:`D_f` from its reference has the implicit reward
:math:`\beta f'(\pi/\pi_{ref})`, so that every log-ratio h becomes :math:`s(h) = f'(e^h)`, up to a constant that
differences lose. Departures: constants are TRL 1.16's, under which s(0) = 0 for all four, and so is the order of the
alpha divergence; older code, with (1 - u^-alpha)/alpha, has f_alpha = 1 - alpha.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, get_args

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from align.objectives.base import PairObjective
from align.objectives.logps import PairLogps
from align.objectives.numerics import bounded_exp
from align.objectives.scores import log_ratios
from align.objectives.settings import check_choice, check_positive

Divergence = Literal["reverse_kl", "forward_kl", "js_divergence", "alpha_divergence"]


def divergence_score(h: Float[Tensor, " pairs"], divergence: Divergence, alpha: float) -> Float[Tensor, " pairs"]:
    """Return ``s(h)``: h for the reverse KL; 1 - e^-h; log 2 + log sigmoid(h); (e^((alpha-1)h) - 1) / (alpha-1).

    Exponentials are :func:`~align.objectives.numerics.bounded_exp`.

    Examples:
        >>> import torch
        >>> divergence_score(torch.tensor([0.0, 1.0]), "forward_kl", 0.5)
        tensor([0.0000, 0.6321])
    """
    if divergence == "forward_kl":
        return 1 - bounded_exp(-h)
    if divergence == "js_divergence":
        return math.log(2.0) + F.logsigmoid(h)
    if divergence == "alpha_divergence":
        return (bounded_exp((alpha - 1) * h) - 1) / (alpha - 1)
    return h


@dataclass(frozen=True, slots=True, kw_only=True)
class LogRatioObjective(PairObjective):
    """Abstract: compares the log-ratios of chosen and rejected, measured by an f-divergence.

    Attributes:
        f_divergence: what holds the policy to the reference: reverse_kl, forward_kl, js_divergence, alpha_divergence.
        f_alpha: order of alpha_divergence, not 1; 0.5 where not given. No setting of the other divergences.
    """

    f_divergence: Divergence = "reverse_kl"
    f_alpha: float | None = None

    def __post_init__(self) -> None:
        check_choice("f_divergence", self.f_divergence, get_args(Divergence))
        if self.f_alpha is not None and self.f_divergence != "alpha_divergence":
            raise ValueError(f"f_alpha would not be used: it belongs to alpha_divergence, not {self.f_divergence}")
        if self.f_alpha is not None and (not math.isfinite(self.f_alpha) or abs(self.f_alpha - 1) < 1e-6):
            raise ValueError(f"f_alpha must be finite and not 1 (that is reverse_kl), got {self.f_alpha}")
        self.check()

    def check(self) -> None:
        """Check the other settings; for subclasses."""

    def side_scores(
        self, policy: PairLogps, reference: PairLogps | None
    ) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """Return ``s(h)`` of chosen and rejected."""
        alpha = 0.5 if self.f_alpha is None else self.f_alpha
        chosen, rejected = (divergence_score(h, self.f_divergence, alpha) for h in log_ratios(policy, reference))
        return chosen, rejected

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the log-ratio margin, as the divergence measures it."""
        chosen, rejected = self.side_scores(policy, reference)
        return chosen - rejected


@dataclass(frozen=True, slots=True, kw_only=True)
class ScaledLogRatioObjective(LogRatioObjective):
    """Abstract: the same, with beta.

    Attributes:
        beta: how hard the policy is held to the reference, > 0. Smaller values let it move further.
    """

    beta: float = 0.1

    def __post_init__(self) -> None:
        LogRatioObjective.__post_init__(self)
        check_positive(beta=self.beta)

    @property
    def reward_scale(self) -> float:
        """Implicit rewards are beta times the log-ratios."""
        return self.beta


class TokenMeans:
    """What a :class:`LogRatioObjective` mixes in to compare log-ratios a token."""

    __slots__ = ()
    needs_lengths = True
    side_scores: Callable[[PairLogps, PairLogps | None], tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]]

    @property
    def mean_rewards(self) -> bool:
        """Rewards are a token."""
        return True

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the difference of mean log-ratios, as the divergence measures them."""
        chosen, rejected = self.side_scores(policy, reference)
        return chosen / policy.chosen_lengths - rejected / policy.rejected_lengths
