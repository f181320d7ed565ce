"""Checks of settings: messages begin with the setting's name."""

import pytest

from align.objectives.settings import (
    check_choice,
    check_finite,
    check_not_negative,
    check_positive,
    check_smoothing,
)

BAD = [float("nan"), float("inf"), -float("inf")]


@pytest.mark.parametrize("value", [0.0, -1.0, *BAD])
def test_positive(value):
    check_positive(beta=1.0)
    with pytest.raises(ValueError, match=r"^beta must be greater than 0 and finite, got"):
        check_positive(other=1.0, beta=value)


@pytest.mark.parametrize("value", [-1e-9, *BAD])
def test_not_negative(value):
    check_not_negative(alpha=0.0)
    with pytest.raises(ValueError, match=r"^alpha must be at least 0"):
        check_not_negative(alpha=value)


@pytest.mark.parametrize("value", BAD)
def test_finite(value):
    check_finite(gamma=-3.0)
    with pytest.raises(ValueError, match=r"^gamma must be finite"):
        check_finite(gamma=value)


def test_smoothing_stops_short_of_a_half():
    check_smoothing(0.0)
    for value in (-0.1, 0.5, float("nan")):
        with pytest.raises(ValueError, match=r"^label_smoothing must lie in \[0, 0.5\)"):
            check_smoothing(value)
    with pytest.raises(ValueError, match=r"^label_smoothing must lie in \(0, 0.5\), got 0"):
        check_smoothing(0.0, zero=False)


def test_choices_are_named():
    check_choice("nll", "sum", ("sum", "mean"))
    with pytest.raises(ValueError, match=r"^nll must be one of sum, mean; got 'men'"):
        check_choice("nll", "men", ("sum", "mean"))
