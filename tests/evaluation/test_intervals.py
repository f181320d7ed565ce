import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.evaluation import intervals
from align.evaluation.intervals import Interval, bootstrap_difference, bootstrap_mean

numbers = st.lists(st.floats(-1e6, 1e6), min_size=2, max_size=30)


def spread(interval: Interval) -> float:
    return interval.high - interval.low


def test_two_items_have_three_resampled_means():
    # Of 0 and 1 a quarter of the draws average 0, a half 0.5, a quarter 1.
    narrow = bootstrap_mean([0.0, 1.0], confidence=0.4)
    wide = bootstrap_mean([0.0, 1.0], confidence=0.6)
    assert (narrow.low, narrow.value, narrow.high) == (0.5, 0.5, 0.5)
    assert (wide.low, wide.value, wide.high) == (0.0, 0.5, 1.0)


def test_items_of_a_group_are_drawn_together():
    # Three 0s in one group and a 1 in the other: the means are 0 (1/4), 1 of 4 items (1/2) and 1 (1/4).
    narrow = bootstrap_mean([0, 0, 0, 1], groups=["p", "p", "p", "q"], confidence=0.4)
    wide = bootstrap_mean([0, 0, 0, 1], groups=["p", "p", "p", "q"], confidence=0.6)
    assert (narrow.low, narrow.value, narrow.high) == (0.25, 0.25, 0.25)
    assert (wide.low, wide.high) == (0.0, 1.0)


def test_copies_in_a_group_add_no_certainty():
    values = np.random.default_rng(0).normal(size=50)
    once = bootstrap_mean(values)
    copied = bootstrap_mean(np.repeat(values, 4), groups=np.repeat(np.arange(50), 4).tolist())
    ignored = bootstrap_mean(np.repeat(values, 4))
    assert copied.low == pytest.approx(once.low)
    assert copied.high == pytest.approx(once.high)
    assert spread(ignored) == pytest.approx(spread(once) / 2, rel=0.1)


def test_agrees_with_the_normal_theory():
    values = np.random.default_rng(1).normal(3.0, 2.0, size=900)
    interval = bootstrap_mean(values, resamples=4000)
    half = 1.959964 * values.std() / 30
    assert interval.value == pytest.approx(values.mean())
    assert interval.high - interval.value == pytest.approx(half, rel=0.08)
    assert interval.value - interval.low == pytest.approx(half, rel=0.08)


def test_covers_as_often_as_it_says():
    generator = np.random.default_rng(2)
    held = [
        interval.low <= 1.0 <= interval.high
        for interval in (
            bootstrap_mean(generator.exponential(size=60), confidence=0.9, resamples=400, seed=trial)
            for trial in range(300)
        )
    ]
    assert 0.84 <= np.mean(held) <= 0.94


@settings(max_examples=50, deadline=None)
@given(numbers, st.floats(0.01, 0.99))
def test_holds_its_value_and_stays_within_the_data(values, confidence):
    interval = bootstrap_mean(values, confidence=confidence, resamples=100)
    slack = 1e-9 * max(1.0, *map(abs, values))
    assert interval.low <= interval.value <= interval.high
    assert min(values) - slack <= interval.low
    assert interval.high <= max(values) + slack


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.floats(-1e6, 1e6), st.sampled_from("abc")), min_size=2, max_size=20), st.randoms())
def test_order_does_not_matter(rows, shuffler):
    def measure(some):
        values, groups = [value for value, _ in some], [group for _, group in some]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return bootstrap_mean(values, resamples=100), bootstrap_mean(values, groups=groups, resamples=100)

    mixed = list(rows)
    shuffler.shuffle(mixed)
    assert measure(mixed) == measure(rows)


@settings(max_examples=30, deadline=None)
@given(numbers, st.floats(-100, 100))
def test_a_shift_moves_the_whole_interval(values, shift):
    before = bootstrap_mean(values, resamples=100)
    after = bootstrap_mean(np.array(values) + shift, resamples=100)
    for name in ("low", "value", "high"):
        assert getattr(after, name) == pytest.approx(getattr(before, name) + shift, rel=1e-6, abs=1e-6)


def test_chunks_do_not_change_the_draws(monkeypatch):
    values = np.random.default_rng(3).normal(size=37)
    whole = bootstrap_mean(values)
    monkeypatch.setattr(intervals, "DRAWS_AT_A_TIME", 100)
    assert bootstrap_mean(values) == whole


def test_a_seed_repeats_and_another_differs():
    values = np.random.default_rng(4).normal(size=40)
    assert bootstrap_mean(values, seed=7) == bootstrap_mean(values, seed=7)
    assert bootstrap_mean(values, seed=7) != bootstrap_mean(values, seed=8)


def test_pairing_removes_what_both_share():
    generator = np.random.default_rng(5)
    shared = generator.normal(0, 10, size=200)
    paired = bootstrap_difference(shared + 1, shared)
    noisy = bootstrap_difference(generator.permutation(shared) + 1, shared)
    assert (paired.low, paired.high) == (pytest.approx(1), pytest.approx(1))
    assert noisy.value == pytest.approx(1)
    assert spread(noisy) > 1


def test_difference_changes_sign_with_its_sides():
    a, b = [1.0, 5.0, 2.0, 2.5], [0.0, 1.0, 4.0, 2.0]
    assert bootstrap_difference(a, b).value == 0.875
    assert bootstrap_difference(b, a).value == -0.875


def test_no_item_is_an_error_and_one_says_nothing_of_the_spread():
    with pytest.raises(ValueError, match="nothing to average"):
        bootstrap_mean([])
    with pytest.warns(UserWarning, match="says nothing of the spread"):
        assert bootstrap_mean([2.0]) == Interval(2.0, 2.0, 2.0, 0.95)
    with pytest.warns(UserWarning, match="says nothing of the spread"):
        bootstrap_mean([1.0, 3.0], groups=["p", "p"])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"values": [1.0, np.nan, np.inf]}, "2 of 3 values are not finite"),
        ({"values": [[1.0], [2.0]]}, "one column"),
        ({"values": [1.0, 2.0], "groups": ["p"]}, "2 values and 1 groups"),
        ({"values": [1.0, 2.0], "confidence": 1.0}, "confidence"),
        ({"values": [1.0, 2.0], "resamples": 0}, "resamples"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        bootstrap_mean(**arguments)


def test_refuses_pairs_of_unequal_number():
    with pytest.raises(ValueError, match="3 and 2"):
        bootstrap_difference([1, 2, 3], [1, 2])


def test_dictionary_for_json():
    assert Interval(1.0, 0.5, 1.5, 0.95).as_dict() == {"value": 1.0, "low": 0.5, "high": 1.5}
