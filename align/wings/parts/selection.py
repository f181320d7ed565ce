"""Masks that select by score: so many a row, a column or of all, or as many as make up a share of the mass."""

from typing import Literal

import torch
from torch import Tensor


def largest(scores: Tensor, budget: int, axis: Literal["row", "column", "all"] = "row") -> Tensor:
    """Return True at the ``budget`` largest scores of each row, of each column, or of the whole table.

    Args:
        scores: of shape (rows, columns).
        budget: how many are selected.
        axis: of what.

    Raises:
        ValueError: the budget is larger than what there is to select from.
    """
    table = {"row": scores, "column": scores.T, "all": scores.reshape(1, -1)}[axis]
    if not 0 <= budget <= table.shape[1]:
        raise ValueError(f"a budget of {budget} does not fit: there are {table.shape[1]} a {axis}")
    chosen = torch.zeros_like(table, dtype=torch.bool)
    chosen.scatter_(1, table.topk(budget, dim=1).indices, True)
    return {"row": chosen, "column": chosen.T, "all": chosen.reshape(scores.shape)}[axis]


def by_mass(scores: Tensor, share: float) -> Tensor:
    """Return True at the largest scores of each row while their cumulative share of the row's sum is at most ``share``.

    How many are selected differs from row to row. With a share of 1 every score above zero is selected; a row of zeros
    selects nothing. The largest is always selected, though it alone be more than the share.

    Args:
        scores: of shape (rows, columns), at least 0.
        share: in (0, 1].
    """
    ordered, places = scores.sort(dim=1, descending=True)
    cumulative = ordered.double().cumsum(1)
    kept = (cumulative <= (share + 1e-6) * cumulative[:, -1:]) & (ordered > 0)
    kept[:, 0] = ordered[:, 0] > 0
    return torch.zeros_like(kept).scatter(1, places, kept)


def straight_through(logits: Tensor, threshold: float = 0.5) -> Tensor:
    """Return 1 where ``sigmoid(logits)`` is above the threshold, else 0; backward, as if it were the sigmoid."""
    soft = logits.sigmoid()
    hard = (soft > threshold).to(soft.dtype)
    return hard + (soft - soft.detach())  # in this order exactly 0 or 1: (1 + s) - s is not
