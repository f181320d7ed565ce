"""Where the positions of measured sequences stand in what a model's modules get.

A forward computes some rows of padded tokens; modules see them as ``(rows, time, ...)`` or flattened, the head sees the
positions that predict a completion token alone. :class:`Places` finds the measured ones in each.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int
from torch import Tensor


class ForeignShapeError(Exception):
    """A module got a tensor whose rows cannot be told apart."""


@dataclass(frozen=True, slots=True)
class Places:
    """Positions of measured sequences in a flattened tensor.

    Attributes:
        index: of each position; 0 where a sequence is shorter than the longest.
        there: False where a sequence is shorter than the longest.
    """

    index: Int[Tensor, "groups members width"]
    there: Bool[Tensor, "groups members width"]

    def take(self, flat: Tensor) -> Tensor:
        """Return what stands at the positions, shape (groups, members, width, ...); 0 where there are none."""
        found = flat[self.index.flatten()].view(*self.index.shape, *flat.shape[1:])
        return found.masked_fill(~self.there.view(*self.there.shape, *[1] * (flat.ndim - 1)), 0)

    def chunks(self, groups: int) -> Iterator["Places"]:
        """Yield so many groups at a time."""
        for start in range(0, len(self.index), max(1, groups)):
            part = slice(start, start + max(1, groups))
            yield Places(self.index[part], self.there[part])


class Sequences:
    """The sequences of a forward, and which of them are measured.

    Args:
        real: True on tokens, False on padding.
        predicted: True on positions whose next token is scored: those that reach the head.
        groups: numbers of the rows that are measured; inner products are taken within a group.
        tokens: ids of the rows.
    """

    def __init__(
        self,
        real: Bool[Tensor, "rows time"],
        predicted: Bool[Tensor, "rows time"],
        groups: Int[Tensor, "groups members"],
        tokens: Int[Tensor, "rows time"],
    ) -> None:
        self.rows, self.time = real.shape
        self.groups = groups
        self.tokens = tokens
        self.all = _places(real, groups, torch.arange(real.numel(), device=real.device).view_as(real))
        self.scored_positions = int(predicted.sum())
        self.scored = _places(predicted, groups, (predicted.flatten().cumsum(0) - 1).view_as(predicted).clamp(min=0))

    def find(self, tensor: Tensor) -> tuple[Tensor, Places]:
        """Return a tensor with its positions flattened, and where the measured ones are.

        Raises:
            ForeignShapeError: if its shape is not one of those that modules get.
        """
        shape = tuple(tensor.shape)
        if shape[:2] == (self.rows, self.time):
            return tensor.reshape(self.rows * self.time, *shape[2:]), self.all
        if shape[:2] == (1, self.scored_positions):
            return tensor[0], self.scored
        if shape[0] == self.rows * self.time:
            return tensor, self.all
        if shape[0] == self.scored_positions:
            return tensor, self.scored
        raise ForeignShapeError(f"a tensor of shape {shape}, in a forward of {self.rows} x {self.time} positions")


def _places(
    marked: Bool[Tensor, "rows time"], groups: Int[Tensor, "groups members"], numbers: Int[Tensor, "rows time"]
) -> Places:
    """Return the marked positions of each row of the groups, in order, with their numbers."""
    chosen, numbered = marked[groups.flatten()], numbers[groups.flatten()]
    width = max(1, int(chosen.sum(-1).max())) if chosen.numel() else 1
    order = torch.argsort(~chosen, dim=-1, stable=True)[:, :width]
    there = chosen.gather(1, order)
    index = numbered.gather(1, order).masked_fill(~there, 0)
    shape = (*groups.shape, width)
    return Places(index.view(shape), there.view(shape))
