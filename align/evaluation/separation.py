"""How well rewards tell desirable completions from undesirable ones of other prompts: area under the ROC curve.

The interval is DeLong's (DeLong, DeLong, Clarke-Pearson, 1988): the variance from each completion's share of
wins over the other side.
"""

from statistics import NormalDist

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.evaluation.intervals import finite_column
from align.recipe.schema import EvaluationSettings


def separation(
    desirable_rewards: ArrayLike, undesirable_rewards: ArrayLike, *, settings: EvaluationSettings
) -> dict[str, float]:
    """Return how often a desirable completion has the higher reward, over all pairs of one of each.

    Args:
        desirable_rewards: reward of each desirable completion.
        undesirable_rewards: reward of each undesirable completion.
        settings: level of the interval.

    Returns:
        ``auc``, ``auc_low``, ``auc_high``: the share, a tie counting one half. ``margin``: mean reward of desirable
        minus that of undesirable ones. ``desirable``, ``undesirable``: how many. Without completions of one kind
        only the counts are there; with one of a kind the interval is all of [0, 1].
    """
    counts = {"desirable": float(np.size(desirable_rewards)), "undesirable": float(np.size(undesirable_rewards))}
    if not all(counts.values()):
        return counts
    good = finite_column(desirable_rewards, "rewards of desirable completions")
    bad = finite_column(undesirable_rewards, "rewards of undesirable completions")
    won, held = _share_below(good, bad), 1 - _share_below(bad, good)
    auc = float(won.mean())
    low, high = 0.0, 1.0
    if min(len(good), len(bad)) > 1:
        error = float(np.sqrt(won.var(ddof=1) / len(won) + held.var(ddof=1) / len(held)))
        reach = NormalDist().inv_cdf(0.5 + settings.confidence / 2) * error
        low, high = max(0.0, auc - reach), min(1.0, auc + reach)
    return {"auc": auc, "auc_low": low, "auc_high": high, "margin": float(good.mean() - bad.mean()), **counts}


def _share_below(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return for each value the share of the others below it, ties counting one half."""
    ordered = np.sort(others)
    below, not_above = (np.searchsorted(ordered, values, side=side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(others))
