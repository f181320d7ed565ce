"""Accuracy of implicit rewards on held-out pairs, beside what length alone would score.

Preference data often prefers the longer completion, and a model can learn just that: an accuracy means something
only next to the baseline that prefers the longer one, and on pairs whose lengths do not differ.
"""

import numpy as np
from numpy.typing import ArrayLike, NDArray

from align.evaluation.intervals import Interval, bootstrap_mean, finite_column
from align.recipe.schema import EvaluationSettings

_ROUNDING = 1e-9
"""Slack on the length tolerance: 0.29 * 100 is a little less than 29 in binary."""


def pair_accuracy(
    chosen_rewards: ArrayLike,
    rejected_rewards: ArrayLike,
    chosen_lengths: ArrayLike,
    rejected_lengths: ArrayLike,
    *,
    settings: EvaluationSettings,
) -> dict[str, float]:
    """Return how well rewards tell chosen from rejected, over the whole data set.

    Args:
        chosen_rewards: reward of each chosen completion.
        rejected_rewards: reward of the rejected completion of the same pair.
        chosen_lengths: length of each chosen completion, in tokens.
        rejected_lengths: length of each rejected completion, in tokens.
        settings: level and resamples of the intervals, and the tolerance on lengths.

    Returns:
        ``accuracy``, ``accuracy_low``, ``accuracy_high``: share of pairs whose chosen has the higher reward, a tie
        counting one half. ``accuracy_longer_wins``: the same of a judge that prefers the longer completion.
        ``accuracy_length_matched``: accuracy on pairs whose lengths differ by at most the tolerance; absent where
        there are none. ``accuracy_length_matched_pairs``: how many there are. ``margin``, ``margin_low``,
        ``margin_high``: mean of chosen minus rejected reward. ``pairs``: how many pairs.

    Raises:
        ValueError: no pairs, columns of different length, or values that are not finite (the message counts them).
    """
    chosen, rejected, ours, theirs = _columns(chosen_rewards, rejected_rewards, chosen_lengths, rejected_lengths)
    won = wins(chosen, rejected)
    matched = np.abs(ours - theirs) <= settings.length_tolerance * np.maximum(ours, theirs) + _ROUNDING
    result = {
        **_spread("accuracy", _estimate(won, settings)),
        "accuracy_longer_wins": float(wins(ours, theirs).mean()),
        "accuracy_length_matched_pairs": float(matched.sum()),
        **_spread("margin", _estimate(chosen - rejected, settings)),
        "pairs": float(len(won)),
    }
    if matched.any():
        result["accuracy_length_matched"] = float(won[matched].mean())
    return result


def wins(ours: NDArray[np.float64], theirs: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return 1 where ours is the greater, 0 where theirs is, and one half at a tie.

    Examples:
        >>> wins(np.array([2.0, 1.0, 1.0]), np.array([1.0, 2.0, 1.0])).tolist()
        [1.0, 0.0, 0.5]
    """
    return 0.5 * (ours > theirs) + 0.5 * (ours >= theirs)


def _estimate(values: NDArray[np.float64], settings: EvaluationSettings) -> Interval:
    return bootstrap_mean(values, confidence=settings.confidence, resamples=settings.resamples)


def _spread(name: str, interval: Interval) -> dict[str, float]:
    return {name: interval.value, f"{name}_low": interval.low, f"{name}_high": interval.high}


def _columns(
    chosen_rewards: ArrayLike, rejected_rewards: ArrayLike, chosen_lengths: ArrayLike, rejected_lengths: ArrayLike
) -> list[NDArray[np.float64]]:
    """Return the four columns, checked."""
    columns = [
        finite_column(chosen_rewards, "chosen rewards"),
        finite_column(rejected_rewards, "rejected rewards"),
        finite_column(chosen_lengths, "chosen lengths"),
        finite_column(rejected_lengths, "rejected lengths"),
    ]
    sizes = [len(column) for column in columns]
    if len(set(sizes)) > 1:
        raise ValueError(f"every pair needs two rewards and two lengths, got {sizes} of them")
    return columns
