"""What entanglement means for a step: which way both log-probabilities go, and how far that is from turning.

Yuan et al., ICLR 2025, arXiv:2410.13828. With ``a, b`` the chosen and rejected log-probabilities, one small step of
plain descent on the pair alone changes ``a`` by ``eta (d_w s_w^2 - d_l <w,l>)`` and ``b`` by
``eta (d_w <w,l> - d_l s_l^2)``. For positive ``d_w, d_l`` and ``r = d_w / d_l``: ``a`` rises where
``<w,l> <= r s_w^2`` and ``b`` falls where ``<w,l> <= s_l^2 / r`` (Condition 2; with r = 1, Condition 1). Both hold
where ``r`` lies in the band ``(cosine r*, r*/cosine)`` around ``r* = s_l / s_w``.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.diagnostics.gradients import PairGradients

CASES = ("ideal", "both_down", "both_up", "reversed")
"""Chosen up and rejected down; both down; both up; chosen down and rejected up, which only negative weights bring."""


def cases(chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> dict[str, Bool[Tensor, " pairs"]]:
    """Return of which case each pair is, given the changes of its two log-probabilities; 0 counts as right.

    Examples:
        >>> found = cases(torch.tensor([1.0, -1.0, 1.0]), torch.tensor([-1.0, -2.0, 0.5]))
        >>> {name: pairs.tolist() for name, pairs in found.items() if name != "reversed"}
        {'ideal': [True, False, False], 'both_down': [False, True, False], 'both_up': [False, False, True]}
    """
    up, down = chosen >= 0, rejected <= 0
    return {"ideal": up & down, "both_down": ~up & down, "both_up": up & ~down, "reversed": ~up & ~down}


@dataclass(frozen=True, slots=True, kw_only=True)
class Pull:
    """What an objective does to pairs whose gradients are known.

    Attributes:
        gradients: of the two log-probabilities. Where the objective weighs tokens, two more members of each pair are
            the gradients as it weighs them, ``sum_t d_t grad logp_t`` of chosen and of rejected.
        d_w: weight on the chosen log-probability, in units of loss a nat.
        d_l: weight on the rejected log-probability.
        others: pairs whose loss has a gradient past the two responses (of the prompt): what a step changes is NaN.
    """

    gradients: PairGradients
    d_w: Float[Tensor, " pairs"]
    d_l: Float[Tensor, " pairs"]
    others: Bool[Tensor, " pairs"] | None = None

    @property
    def chosen_change(self) -> Float[Tensor, " pairs"]:
        """Nats that the chosen log-probability gains from a step of plain descent on the pair, a unit of step size."""
        return self._change(0)

    @property
    def rejected_change(self) -> Float[Tensor, " pairs"]:
        """Nats that the rejected log-probability gains, likewise."""
        return self._change(1)

    def _change(self, side: int) -> Float[Tensor, " pairs"]:
        products = self.gradients.products
        if products.shape[1] == 4:
            change = products[:, side, 2] - products[:, side, 3]
        else:
            change = self.d_w * products[:, side, 0] - self.d_l * products[:, side, 1]
        return change if self.others is None else change.masked_fill(self.others, torch.nan)

    @property
    def ratio(self) -> Float[Tensor, " pairs"]:
        """``r = d_w / d_l``; NaN where the two are not both positive, and the conditions do not apply."""
        return torch.where((self.d_w > 0) & (self.d_l > 0), self.d_w / self.d_l, torch.nan)

    @property
    def norm_ratio(self) -> Float[Tensor, " pairs"]:
        """``r* = s_l / s_w``: the ratio at which both conditions hold whatever the cosine."""
        return self.gradients.rejected_norm / self.gradients.chosen_norm

    @property
    def band(self) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """Ratios between which both conditions hold: 0 and infinity where the cosine is not positive."""
        cosine, centre = self.gradients.cosine, self.norm_ratio
        bound = cosine > 0
        low = torch.where(bound, cosine * centre, 0.0)
        return low, torch.where(bound, centre / cosine, torch.inf)

    @property
    def chosen_slack(self) -> Float[Tensor, " pairs"]:
        """``r / r* - cosine``: how far the condition for a rising chosen is from failing; it holds from 0 on."""
        return self.ratio / self.norm_ratio - self.gradients.cosine

    @property
    def rejected_slack(self) -> Float[Tensor, " pairs"]:
        """``r* / r - cosine``: the same for a falling rejected."""
        return self.norm_ratio / self.ratio - self.gradients.cosine

    def metrics(self, step_size: float | Float[Tensor, " pairs"] = 1.0) -> dict[str, Float[Tensor, " pairs"]]:
        """Return what is logged of each pair; NaN where something does not apply to it.

        Args:
            step_size: what changes are multiplied by: learning rate times the pair's share of the step's loss.
        """
        gradients = self.gradients
        chosen, rejected = step_size * self.chosen_change, step_size * self.rejected_change
        found = {
            "cosine": gradients.cosine,
            "inner": gradients.inner,
            "chosen_norm": gradients.chosen_norm,
            "rejected_norm": gradients.rejected_norm,
            "norm_ratio": self.norm_ratio,
            "d_chosen": self.d_w,
            "d_rejected": self.d_l,
            "ratio": self.ratio,
            "chosen_slack": self.chosen_slack,
            "rejected_slack": self.rejected_slack,
            "sgd_chosen": chosen,
            "sgd_rejected": rejected,
        }
        shares = _shares("share", self.chosen_change, self.rejected_change)
        return {name: values.double() for name, values in (found | shares).items()}


def step_metrics(chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> dict[str, Tensor]:
    """Return what is logged of the changes that the optimiser's own step makes, to first order, in nats."""
    shares = _shares("step_share", chosen, rejected)
    return {"step_chosen": chosen.double(), "step_rejected": rejected.double(), **shares}


def _shares(prefix: str, chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]) -> dict[str, Tensor]:
    """Return 1 for the case that a pair is of, else 0; NaN where nothing moved, or what moved is no number."""
    still = ((chosen == 0) & (rejected == 0)) | chosen.isnan() | rejected.isnan()
    found = cases(chosen, rejected).items()
    return {f"{prefix}_{name}": pairs.double().masked_fill(still, torch.nan) for name, pairs in found}


METRICS = (
    *("cosine", "inner", "chosen_norm", "rejected_norm", "norm_ratio", "d_chosen", "d_rejected", "ratio"),
    *("chosen_slack", "rejected_slack", "sgd_chosen", "sgd_rejected", *(f"share_{name}" for name in CASES)),
)
"""What :meth:`Pull.metrics` returns."""
STEP_METRICS = ("step_chosen", "step_rejected", *(f"step_share_{name}" for name in CASES))
"""What :func:`step_metrics` returns."""
