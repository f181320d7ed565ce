"""What an objective pulls at: how its loss changes with the two log-probabilities, by automatic differentiation.

``d_w = -dl/d log pi(y_w)`` and ``d_l = dl/d log pi(y_l)``: the loss's gradient is ``-(d_w grad log pi(y_w) -
d_l grad log pi(y_l))`` (Yuan et al., 2024, arXiv:2410.13828). They come from the very function that trains.
"""

from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.base import Objective
from align.objectives.logps import PairTokenLogps


@dataclass(frozen=True, slots=True, kw_only=True)
class Incentives:
    """Weights on the two log-probabilities of each pair, in units of loss a nat, of the batch's summed loss.

    Attributes:
        chosen: d_w of each chosen token; 0 outside the completion.
        rejected: d_l of each rejected token; 0 outside the completion.
        chosen_mask: True on chosen tokens.
        rejected_mask: True on rejected tokens.
    """

    chosen: Float[Tensor, "pairs chosen_tokens"]
    rejected: Float[Tensor, "pairs rejected_tokens"]
    chosen_mask: Bool[Tensor, "pairs chosen_tokens"]
    rejected_mask: Bool[Tensor, "pairs rejected_tokens"]

    @property
    def d_w(self) -> Float[Tensor, " pairs"]:
        """Weight on the chosen log-probability: the mean over its tokens, all equal where the loss reads their sum."""
        return _mean(self.chosen, self.chosen_mask)

    @property
    def d_l(self) -> Float[Tensor, " pairs"]:
        """Weight on the rejected log-probability, likewise."""
        return _mean(self.rejected, self.rejected_mask)

    def factors(self, within: float = 1e-6) -> Bool[Tensor, " pairs"]:
        """Return which pairs the loss reads through their two summed log-probabilities alone.

        Args:
            within: largest difference between tokens of a side, relative to the largest weight.
        """
        sides = ((self.chosen, self.chosen_mask), (self.rejected, self.rejected_mask))
        return torch.stack([constant(values, mask, within) for values, mask in sides]).all(0)


def incentives(objective: Objective, policy: PairTokenLogps, reference: PairTokenLogps | None = None) -> Incentives:
    """Return the weights of an objective on each token of a batch of pairs.

    Args:
        objective: any objective.
        policy: log-probabilities of the policy's tokens; their graph is not touched.
        reference: of the reference's, where the objective needs one.
    """
    sides = {"chosen": policy.chosen, "rejected": policy.rejected}
    leaves = {side: tokens.logp.detach().clone().requires_grad_() for side, tokens in sides.items()}
    leafy = replace(
        policy,
        chosen=replace(policy.chosen, logp=leaves["chosen"]),
        rejected=replace(policy.rejected, logp=leaves["rejected"]),
    )
    with torch.enable_grad():
        loss = objective.of_tokens(leafy, reference).sum()
    slopes = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    chosen, rejected = (
        torch.zeros_like(leaf) if slope is None else slope for leaf, slope in zip(leaves.values(), slopes, strict=True)
    )
    return Incentives(
        chosen=-chosen, rejected=rejected, chosen_mask=policy.chosen.mask, rejected_mask=policy.rejected.mask
    )


def _mean(values: Float[Tensor, "pairs tokens"], mask: Bool[Tensor, "pairs tokens"]) -> Float[Tensor, " pairs"]:
    return values.masked_fill(~mask, 0.0).sum(-1) / mask.sum(-1)


def constant(
    values: Float[Tensor, "pairs tokens"], mask: Bool[Tensor, "pairs tokens"], within: float
) -> Bool[Tensor, " pairs"]:
    """Return for which pairs the weights of a side's tokens are all the same, up to a relative difference."""
    high = values.masked_fill(~mask, -torch.inf).amax(-1)
    low = values.masked_fill(~mask, torch.inf).amin(-1)
    return high - low <= within * torch.maximum(high.abs(), low.abs())
