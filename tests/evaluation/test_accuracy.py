import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.evaluation.accuracy import pair_accuracy
from align.recipe.schema import EvaluationSettings

SETTINGS = EvaluationSettings(resamples=100)

pairs = st.lists(
    st.tuples(st.integers(-5, 5), st.integers(-5, 5), st.integers(1, 40), st.integers(1, 40)), min_size=2, max_size=30
)


def measure(rows, tolerance=0.1):
    columns = np.array(rows, dtype=float).T
    return pair_accuracy(*columns, settings=EvaluationSettings(resamples=100, length_tolerance=tolerance))


def test_by_hand():
    # won, lost, tied, won, won; the chosen is longer, as long, shorter, shorter, 1 of 10 shorter.
    result = pair_accuracy(
        [2.0, -1.0, 0.5, 3.0, 1.0],
        [1.0, 1.0, 0.5, -1.0, 0.5],
        [20, 10, 10, 5, 9],
        [10, 10, 20, 50, 10],
        settings=SETTINGS,
    )
    assert result["accuracy"] == pytest.approx(3.5 / 5)
    assert result["accuracy_longer_wins"] == pytest.approx(1.5 / 5)
    assert result["accuracy_length_matched"] == pytest.approx(1 / 2)
    assert result["accuracy_length_matched_pairs"] == 2
    assert result["margin"] == pytest.approx((1 - 2 + 0 + 4 + 0.5) / 5)
    assert result["pairs"] == 5
    assert result["accuracy_low"] <= result["accuracy"] <= result["accuracy_high"]
    assert result["margin_low"] <= result["margin"] <= result["margin_high"]
    assert all(type(value) is float for value in result.values())


def test_the_tolerance_is_a_share_of_the_longer_and_includes_its_end():
    assert measure([(1, 0, 100, 71)] * 2, tolerance=0.29)["accuracy_length_matched_pairs"] == 2
    assert measure([(1, 0, 100, 70)] * 2, tolerance=0.29)["accuracy_length_matched_pairs"] == 0
    assert measure([(1, 0, 7, 7), (1, 0, 7, 8)], tolerance=0.0)["accuracy_length_matched_pairs"] == 1


def test_a_key_is_absent_where_no_pair_is_matched():
    result = measure([(1, 0, 10, 40), (0, 1, 3, 9)])
    assert "accuracy_length_matched" not in result
    assert result["accuracy_length_matched_pairs"] == 0
    assert np.isfinite(list(result.values())).all()


def test_it_is_of_the_data_set_not_of_batches():
    # Batches of 2 and 1 with accuracies 1 and 0: the mean of batch means would be 1/2.
    assert measure([(1, 0, 5, 5), (1, 0, 5, 5), (0, 1, 5, 5)])["accuracy"] == pytest.approx(2 / 3)


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_exchanging_the_sides_mirrors_everything(rows):
    forwards = measure(rows)
    backwards = measure([(rejected, chosen, theirs, ours) for chosen, rejected, ours, theirs in rows])
    assert backwards["accuracy"] == pytest.approx(1 - forwards["accuracy"])
    assert backwards["accuracy_longer_wins"] == pytest.approx(1 - forwards["accuracy_longer_wins"])
    assert backwards["margin"] == pytest.approx(-forwards["margin"])
    assert backwards["accuracy_length_matched_pairs"] == forwards["accuracy_length_matched_pairs"]


@settings(max_examples=40, deadline=None)
@given(pairs, st.randoms())
def test_order_does_not_matter(rows, shuffler):
    mixed = list(rows)
    shuffler.shuffle(mixed)
    assert measure(mixed) == measure(rows)


@settings(max_examples=40, deadline=None)
@given(pairs)
def test_accuracy_depends_on_the_order_of_rewards_only(rows):
    stretched = [(np.exp(chosen), np.exp(rejected), ours, theirs) for chosen, rejected, ours, theirs in rows]
    before, after = measure(rows), measure(stretched)
    for name in ("accuracy", "accuracy_low", "accuracy_high"):
        assert after[name] == before[name]


def test_a_reward_that_is_length_scores_what_the_baseline_scores():
    lengths = np.random.default_rng(0).integers(1, 60, size=(2, 200))
    result = pair_accuracy(*lengths, *lengths, settings=SETTINGS)
    assert result["accuracy"] == result["accuracy_longer_wins"]


def test_broken_rewards_are_counted():
    with pytest.raises(ValueError, match="2 of 3 rejected rewards are not finite"):
        pair_accuracy([1, 2, 3], [np.nan, np.inf, 0], [1, 1, 1], [1, 1, 1], settings=SETTINGS)
    with pytest.raises(ValueError, match="nothing to average"):
        pair_accuracy([], [], [], [], settings=SETTINGS)
    with pytest.raises(ValueError, match=r"\[2, 2, 2, 1\]"):
        pair_accuracy([1, 2], [1, 2], [1, 2], [1], settings=SETTINGS)
