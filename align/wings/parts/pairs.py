"""Objectives of pairs: which rows belong together, which are held apart, and what a table of similarities then loses.

Rows of a table are anchors, columns what they are compared with. Two masks say what a column is to a row; a column in
neither is ignored (a row itself, another row with the same caption).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Pairs:
    """What columns are to rows.

    Attributes:
        positive: of shape (rows, columns), bool.
        negative: of the same shape; disjoint from ``positive``.
    """

    positive: Tensor
    negative: Tensor

    @classmethod
    def matching(cls, rows: Tensor, columns: Tensor, *, same: Tensor | None = None) -> "Pairs":
        """Pair rows with columns of the same number; hold all others apart but those that ``same`` ignores.

        Args:
            rows: of shape (rows,), such as an index or a class.
            columns: of shape (columns,).
            same: of shape (rows, columns), True where two are not told apart though their numbers differ.
        """
        positive = rows[:, None] == columns[None, :]
        negative = ~positive if same is None else ~positive & ~same
        return cls(positive, negative)

    @classmethod
    def among(cls, rows: Tensor, columns: Tensor, places: Tensor) -> "Pairs":
        """Pair rows with columns of the same number, but none with the column it is itself.

        Args:
            rows: of shape (rows,), such as an index that several views share, or a class.
            columns: of shape (columns,), such as those of all processes.
            places: of shape (rows,), the column that each row is itself.
        """
        itself = torch.arange(len(columns), device=columns.device) == places[:, None]
        alike = rows[:, None] == columns[None, :]
        return cls(alike & ~itself, ~alike)

    @classmethod
    def of_two_views(cls, n: int, device: torch.device | None = None) -> "Pairs":
        """Pair each of ``2 n`` rows, two views one after the other, with its other view; itself is ignored."""
        number = torch.arange(n, device=device).repeat(2)
        return cls.among(number, number, torch.arange(2 * n, device=device))

    @classmethod
    def of_classes(cls, labels: Tensor) -> "Pairs":
        """Pair each row with all others of its class; itself is ignored."""
        return cls.among(labels, labels, torch.arange(len(labels), device=labels.device))


def cosines(a: Tensor, b: Tensor) -> Tensor:
    """Return the cosine of every row of ``a`` with every row of ``b``, of shape (rows of a, rows of b)."""
    return F.normalize(a, dim=-1) @ F.normalize(b, dim=-1).T


def info_nce(similarity: Tensor, pairs: Pairs, *, temperature: float | Tensor, weights: Tensor | None = None) -> Tensor:
    """Return each row's mean over its positives of ``-log(e^{s+/t} / (sum over positives and negatives of e^{s/t}))``.

    With one positive a row this is InfoNCE (van den Oord et al. 2018) and NT-Xent (Chen et al. 2020); with several it
    is SupCon (Khosla et al. 2020, the sum outside the logarithm). A row without positives loses nothing.

    Args:
        similarity: of shape (rows, columns).
        pairs: what the columns are.
        temperature: a number, or one a row, of shape (rows, 1).
        weights: of shape (rows, columns), factors of ``e^{s/t}`` in the sum; None is one each.
    """
    logits, counted = similarity / temperature, pairs.positive | pairs.negative
    if weights is not None:
        counted = counted & (weights > 0)  # not a tiny weight: e^{s/t} of a small t is larger than that is small
        logits = logits + weights.where(weights > 0, 1.0).log()
    total = logits.masked_fill(~counted, float("-inf")).logsumexp(1)
    positives = pairs.positive.sum(1)
    own = (similarity / temperature).where(pairs.positive, 0.0).sum(1) / positives.clamp_min(1)
    return torch.where(positives > 0, total - own, 0.0)


def simple(similarity: Tensor, pairs: Pairs) -> Tensor:
    """Return each row's mean similarity with its negatives minus that with its positives (t to infinity)."""
    return _mean(similarity, pairs.negative) - _mean(similarity, pairs.positive)


def spectral(products: Tensor, pairs: Pairs) -> Tensor:
    """Return each row's ``-2 mean s+ + mean (s-)^2`` of plain inner products (HaoChen et al. 2021)."""
    return _mean(products.square(), pairs.negative) - 2 * _mean(products, pairs.positive)


def agreement(a: Tensor, b: Tensor, *, stop: bool = True) -> Tensor:
    """Return each row's ``1 - cosine`` of two rows that belong together; no gradient into ``b`` where it stops."""
    return 1 - F.cosine_similarity(a, b.detach() if stop else b, dim=-1)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    return values.where(mask, 0.0).sum(1) / mask.sum(1).clamp_min(1)
