"""Metrics of a run as columns over its steps."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """A metric over training, without what is not finite.

    Attributes:
        steps: optimiser steps, ascending; of a step logged twice (a run taken up again) the later line counts.
        values: the metric at each step.
    """

    steps: NDArray[np.float64]
    values: NDArray[np.float64]

    def __len__(self) -> int:
        """Return the number of points."""
        return len(self.steps)

    @property
    def last(self) -> float | None:
        """The metric at the last step; None where there are no points."""
        return float(self.values[-1]) if len(self) else None


def series(rows: Rows, key: str) -> Series:
    """Return what was logged of a metric.

    Examples:
        >>> found = series([{"step": 4, "loss": 0.5}, {"step": 2, "loss": 0.7}, {"step": 2, "loss": 0.6}], "loss")
        >>> found.steps.tolist(), found.values.tolist()
        ([2.0, 4.0], [0.6, 0.5])
    """
    points = {row["step"]: row[key] for row in rows if is_number(row.get(key))}
    finite = sorted((step, value) for step, value in points.items() if np.isfinite(value))
    return Series(np.array([step for step, _ in finite], float), np.array([value for _, value in finite], float))


def change(line: Series) -> Series:
    """Return the difference of every value to the first one."""
    return Series(line.steps, line.values - line.values[:1])


def has(rows: Rows, keys: Sequence[str]) -> bool:
    """Return whether any of the metrics was logged at all, finite or not."""
    return any(is_number(row.get(key)) for row in rows for key in keys)


def is_number(value: object) -> bool:
    """Return whether a value is a number; truth values are none."""
    return isinstance(value, int | float) and not isinstance(value, bool)
