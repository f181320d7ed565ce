"""Intervals by the percentile bootstrap: Efron and Tibshirani, An Introduction to the Bootstrap, 1993, chapter 13.

The items of the data set are drawn again with replacement, the mean of each draw is taken, and the interval runs
between two quantiles of those means. Departures: the interval is widened to hold the estimate itself where skew
would leave it outside, and items are sorted first, so that their order changes nothing.

What it cannot do: items that are all alike give an interval of no width, so ten right out of ten is reported as
[1, 1]; and with fewer than some twenty items it covers less often than it says.
"""

import math
import warnings
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

DRAWS_AT_A_TIME = 1 << 20
"""Items drawn at a time; bounds the memory to some 24 MB, whatever the number of resamples."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate and how far it can be trusted.

    Attributes:
        value: the estimate, in the unit of the data.
        low: lower end, at most ``value``.
        high: upper end, at least ``value``.
        confidence: share of data sets whose interval would hold the true value, in (0, 1).
    """

    value: float
    low: float
    high: float
    confidence: float

    def as_dict(self) -> dict[str, float]:
        """Return ``value``, ``low`` and ``high``, ready for JSON."""
        return {"value": self.value, "low": self.low, "high": self.high}


def bootstrap_mean(
    values: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean of the values with its percentile-bootstrap interval.

    Args:
        values: one number an item, all finite.
        groups: label of each item's group; items of one group (samples of one prompt) are drawn together. Absent:
            every item on its own.
        confidence: level of the interval, in (0, 1).
        resamples: number of draws of the whole data set.
        seed: of the draws; the same seed gives the same interval.

    Raises:
        ValueError: no values, values that are not finite, a wrong number of groups, or a setting out of range.

    Warns:
        UserWarning: there is one item (or one group) only; the interval then has no width and says nothing.

    Examples:
        >>> bootstrap_mean([0.0, 0.0, 1.0, 1.0]).value
        0.5
    """
    _check_settings(confidence, resamples)
    numbers = finite_column(values, "values")
    totals, counts = _group_totals(numbers, groups)
    if len(totals) == 1:
        warnings.warn("one item says nothing of the spread: its interval has no width", stacklevel=2)
    value = math.fsum(numbers) / len(numbers)
    means = _resampled_means(totals, counts, resamples, seed)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    return Interval(value, min(float(low), value), max(float(high), value), confidence)


def bootstrap_difference(
    a: ArrayLike,
    b: ArrayLike,
    *,
    groups: Sequence[Hashable] | None = None,
    confidence: float = 0.95,
    resamples: int = 2000,
    seed: int = 0,
) -> Interval:
    """Return the mean of ``a - b`` over paired items with its interval.

    Item i of both is drawn together, so what the two have in common (a hard prompt) does not widen the interval.
    Arguments and errors are those of :func:`bootstrap_mean`.

    Raises:
        ValueError: also where ``a`` and ``b`` differ in length.
    """
    left, right = finite_column(a, "a"), finite_column(b, "b")
    if len(left) != len(right):
        raise ValueError(f"paired values must be as many on both sides, got {len(left)} and {len(right)}")
    return bootstrap_mean(left - right, groups=groups, confidence=confidence, resamples=resamples, seed=seed)


def finite_column(values: ArrayLike, name: str) -> NDArray[np.float64]:
    """Return the values as one column of float64.

    Raises:
        ValueError: there are none, they have more than one dimension, or some are not finite (the message counts them).
    """
    column = np.asarray(values, dtype=np.float64)
    if column.ndim != 1:
        raise ValueError(f"{name} must be one column of numbers, got shape {column.shape}")
    if not len(column):
        raise ValueError(f"{name} is empty: there is nothing to average")
    if broken := int(np.count_nonzero(~np.isfinite(column))):
        raise ValueError(f"{broken} of {len(column)} {name} are not finite (NaN or infinite)")
    return column


def _check_settings(confidence: float, resamples: int) -> None:
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie in (0, 1), got {confidence}")
    if resamples < 1:
        raise ValueError(f"resamples must be at least 1, got {resamples}")


def _group_totals(
    values: NDArray[np.float64], groups: Sequence[Hashable] | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the sum and the number of items of each group, in an order that does not depend on theirs."""
    if groups is None:
        return np.sort(values), np.ones(len(values))
    if len(groups) != len(values):
        raise ValueError(f"every value needs a group, got {len(values)} values and {len(groups)} groups")
    numbers = {label: number for number, label in enumerate(dict.fromkeys(groups))}
    member = np.array([numbers[label] for label in groups])
    rows = np.lexsort((values, member))
    totals = np.bincount(member[rows], weights=values[rows]).astype(np.float64)
    counts = np.bincount(member).astype(np.float64)
    order = np.lexsort((counts, totals))
    return totals[order], counts[order]


def _resampled_means(
    totals: NDArray[np.float64], counts: NDArray[np.float64], resamples: int, seed: int
) -> NDArray[np.float64]:
    """Return the mean over items of each draw of groups."""
    generator = np.random.default_rng(seed)
    rows = max(1, DRAWS_AT_A_TIME // len(totals))
    means = np.empty(resamples)
    for start in range(0, resamples, rows):
        size = min(rows, resamples - start)
        drawn = generator.integers(len(totals), size=(size, len(totals)))
        means[start : start + size] = totals[drawn].sum(1) / counts[drawn].sum(1)
    return means
