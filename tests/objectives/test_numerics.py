"""Functions that stay finite: exact away from their bounds, finite with the right sign beyond."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.objectives.numerics import LARGEST_EXPONENT, NEAREST_TO_CERTAIN, bounded_exp, log1mexp, log_odds


def value_and_slope(function, x, dtype=torch.float64):
    point = torch.tensor([x], dtype=dtype, requires_grad=True)
    value = function(point)
    (slope,) = torch.autograd.grad(value.sum(), point)
    return float(value.detach()), float(slope)


@given(st.floats(-700, -1e-7))
def test_log1mexp_is_exact_in_both_branches(x):
    """Against Python's own log1p and expm1, the branch that loses no digits; slope -p/(1-p)."""
    value, slope = value_and_slope(log1mexp, x)
    exact = math.log(-math.expm1(x)) if x > -math.log(2) else math.log1p(-math.exp(x))
    assert value == pytest.approx(exact, rel=1e-12, abs=1e-300)
    assert slope == pytest.approx(math.exp(x) / math.expm1(x), rel=1e-10, abs=1e-300)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("x", [0.0, -1e-9, 1e-7])
def test_log1mexp_at_certainty_is_its_tangent(x, dtype):
    value, slope = value_and_slope(log1mexp, x, dtype)
    tangent = math.log(NEAREST_TO_CERTAIN) - (x + NEAREST_TO_CERTAIN) / NEAREST_TO_CERTAIN
    assert value == pytest.approx(tangent, rel=1e-6)
    assert slope == pytest.approx(-1 / NEAREST_TO_CERTAIN, rel=1e-6)


def test_log1mexp_is_steady_and_falls_across_its_seams():
    x = torch.cat([-torch.logspace(-12, 2, 4000, dtype=torch.float64), torch.zeros(1, dtype=torch.float64)])
    values = log1mexp(x.sort().values)
    assert (values.diff() <= 0).all()
    for seam in (-math.log(2), -NEAREST_TO_CERTAIN):
        below, above = (value_and_slope(log1mexp, seam * factor)[0] for factor in (1 + 1e-9, 1 - 1e-9))
        assert below == pytest.approx(above, rel=1e-6)


@given(st.floats(-80, 29.9))
def test_bounded_exp_is_exp_below_its_bound(x):
    value, slope = value_and_slope(bounded_exp, x)
    assert value == slope == pytest.approx(math.exp(x), rel=1e-12)


@pytest.mark.parametrize("x", [LARGEST_EXPONENT + 1, 1e4])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_bounded_exp_goes_on_rising_beyond(x, dtype):
    value, slope = value_and_slope(bounded_exp, x, dtype)
    top = math.exp(LARGEST_EXPONENT)
    assert value == pytest.approx(top * (1 + x - LARGEST_EXPONENT), rel=1e-5)
    assert slope == pytest.approx(top, rel=1e-6)


@given(st.floats(1e-6, 1 - 1e-6))
def test_log_odds(p):
    assert value_and_slope(log_odds, math.log(p))[0] == pytest.approx(math.log(p / (1 - p)), rel=1e-6, abs=1e-9)
