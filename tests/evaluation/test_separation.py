"""The area under the ROC curve against a slow count, and its interval against the textbook cases."""

import numpy as np
import pytest

from align.evaluation.separation import separation
from align.recipe.schema import EvaluationSettings

SETTINGS = EvaluationSettings()


def slow(good, bad):
    return np.mean([(g > b) + 0.5 * (g == b) for g in good for b in bad])


def test_it_is_the_share_of_pairs_in_the_right_order():
    generator = np.random.default_rng(0)
    good, bad = generator.integers(0, 6, 23) + 1.0, generator.integers(0, 6, 31).astype(float)
    found = separation(good, bad, settings=SETTINGS)
    assert found["auc"] == pytest.approx(slow(good, bad))
    assert found["margin"] == pytest.approx(good.mean() - bad.mean())
    assert found["auc_low"] < found["auc"] < found["auc_high"]


def test_by_hand():
    """Of the four pairs of {1, 3} and {0, 2} three are in order: 0.75. Shares won: 1/2, 1; held: 1, 1/2."""
    found = separation([1.0, 3.0], [0.0, 2.0], settings=EvaluationSettings(confidence=0.6826894921))
    assert found["auc"] == 0.75
    assert found["auc_high"] == pytest.approx(min(1.0, 0.75 + np.sqrt(2 * 0.125 / 2)))


def test_the_interval_covers_as_often_as_it_says():
    generator, truth, inside = np.random.default_rng(1), 0.7602499, 0  # of N(1, 1) over N(0, 1)
    for _ in range(400):
        found = separation(generator.normal(1, 1, 40), generator.normal(0, 1, 50), settings=SETTINGS)
        inside += found["auc_low"] <= truth <= found["auc_high"]
    assert 0.90 <= inside / 400 <= 0.98


def test_few_rows():
    assert separation([], [1.0], settings=SETTINGS) == {"desirable": 0.0, "undesirable": 1.0}
    one = separation([2.0], [1.0], settings=SETTINGS)
    assert (one["auc"], one["auc_low"], one["auc_high"]) == (1.0, 0.0, 1.0)


def test_numbers_that_are_none_are_refused():
    with pytest.raises(ValueError, match="not finite"):
        separation([float("nan")], [1.0], settings=SETTINGS)
