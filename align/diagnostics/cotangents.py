"""How the loss of a step weighs every token's log-probability, read in its backward: c = d(loss) / d(logp)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.incentives import constant

FAINT = {torch.float16: 1e-4}
"""Weights below which a backward in this type has lost digits; 1e-15 elsewhere, whose squares float32 still holds."""


class Watched:
    """A tensor of the graph, and the gradient that reaches it."""

    def __init__(self, tensor: Tensor) -> None:
        self.slope: Tensor | None = None
        self._like = tensor.detach()
        if tensor.requires_grad:
            tensor.register_hook(self._keep)  # type: ignore[no-untyped-call]

    def _keep(self, slope: Tensor) -> None:
        self.slope = slope.detach()

    def get(self) -> Tensor:
        """Return the gradient; 0 where none came."""
        return torch.zeros_like(self._like) if self.slope is None else self.slope


@dataclass(frozen=True, slots=True, kw_only=True)
class Weights:
    """What the loss makes of the log-probabilities of measured pairs.

    Attributes:
        chosen: of each chosen token.
        rejected: of each rejected token.
        chosen_mask: True on chosen tokens.
        rejected_mask: True on rejected tokens.
        loss: what each pair's own loss counts in what is differentiated.
        others: pairs whose gradient has parts that go past these log-probabilities.
    """

    chosen: Float[Tensor, "pairs chosen_tokens"]
    rejected: Float[Tensor, "pairs rejected_tokens"]
    chosen_mask: Bool[Tensor, "pairs chosen_tokens"]
    rejected_mask: Bool[Tensor, "pairs rejected_tokens"]
    loss: Float[Tensor, " pairs"]
    others: Bool[Tensor, " pairs"]

    @property
    def of_sides(self) -> Float[Tensor, "pairs sides"]:
        """The mean over each side's tokens: all are equal where the loss reads their sum."""
        sides = ((self.chosen, self.chosen_mask), (self.rejected, self.rejected_mask))
        return torch.stack([v.masked_fill(~m, 0.0).double().sum(-1) / m.sum(-1) for v, m in sides], 1)

    def factors(self, within: float = 1e-5) -> Bool[Tensor, " pairs"]:
        """Return which pairs the loss reads through their two summed log-probabilities alone."""
        masks = (self.chosen_mask, self.rejected_mask)
        return constant_sides((self.chosen, self.rejected), masks, within) & ~self.others

    def strong(self, dtype: torch.dtype) -> Bool[Tensor, " pairs"]:
        """Return which pairs have weights that a backward in a type carries without losing digits."""
        return (self.of_sides.abs() > FAINT.get(dtype, 1e-15)).all(1)

    @property
    def incentives(self) -> tuple[Float[Tensor, "pairs chosen_tokens"], Float[Tensor, "pairs rejected_tokens"]]:
        """``d_w`` of each chosen and ``d_l`` of each rejected token: of the pair's own loss, 0 outside completions."""
        own = self.loss[:, None]
        return (
            (-self.chosen / own).masked_fill(~self.chosen_mask, 0.0),
            (self.rejected / own).masked_fill(~self.rejected_mask, 0.0),
        )

    @property
    def d_w(self) -> Float[Tensor, " pairs"]:
        """Weight on the chosen log-probability, in loss a nat."""
        return -self.of_sides[:, 0] / self.loss.double()

    @property
    def d_l(self) -> Float[Tensor, " pairs"]:
        """Weight on the rejected log-probability, in loss a nat."""
        return self.of_sides[:, 1] / self.loss.double()

    def pick(self, pairs: Any) -> "Weights":
        """Return those of some pairs."""
        return Weights(
            chosen=self.chosen[pairs],
            rejected=self.rejected[pairs],
            chosen_mask=self.chosen_mask[pairs],
            rejected_mask=self.rejected_mask[pairs],
            loss=self.loss[pairs],
            others=self.others[pairs],
        )


def constant_sides(sides: Sequence[Tensor], masks: Sequence[Tensor], within: float = 1e-5) -> Bool[Tensor, " pairs"]:
    """Return for which pairs the weights of each side's tokens are all the same, up to a relative difference."""
    return torch.stack([constant(values, mask, within) for values, mask in zip(sides, masks, strict=True)]).all(0)
