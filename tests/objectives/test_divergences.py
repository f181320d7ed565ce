"""f-divergences: the derivatives of their generators, and what they have in common."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.objectives.divergences import divergence_score
from align.objectives.dpo import DPO

GENERATORS = {
    "reverse_kl": lambda u: u * torch.log(u),
    "forward_kl": lambda u: -torch.log(u),
    "js_divergence": lambda u: u * torch.log(u) - (u + 1) * torch.log((u + 1) / 2),
    "alpha_divergence": lambda u: (u**0.5 - 0.5 * u - 0.5) / (0.5 * (0.5 - 1)),
}
"""f of Wang et al., 2023; the alpha divergence of order 0.5."""


@pytest.mark.parametrize("divergence", GENERATORS)
@given(h=st.floats(-6, 6))
def test_the_score_is_the_generators_derivative_up_to_a_constant(divergence, h):
    """A constant is lost in the difference of both sides."""
    ratios = torch.tensor([0.0, h], dtype=torch.float64).exp().requires_grad_()
    (slopes,) = torch.autograd.grad(GENERATORS[divergence](ratios).sum(), ratios)
    scores = divergence_score(torch.tensor([0.0, h], dtype=torch.float64), divergence, 0.5)
    torch.testing.assert_close(scores[1] - scores[0], slopes[1] - slopes[0], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("divergence", GENERATORS)
def test_scores_are_0_with_slope_1_where_policy_and_reference_agree(divergence):
    h = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    score = divergence_score(h, divergence, 0.5)
    (slope,) = torch.autograd.grad(score.sum(), h)
    assert float(score.detach()) == pytest.approx(0.0, abs=1e-15)
    assert float(slope) == pytest.approx(0.5 if divergence == "js_divergence" else 1.0)


@given(st.floats(-3, 3))
def test_the_alpha_divergence_runs_from_forward_to_reverse(h):
    at = torch.tensor([h], dtype=torch.float64)
    forward, reverse = divergence_score(at, "alpha_divergence", 0.0), divergence_score(at, "alpha_divergence", 1 + 1e-9)
    torch.testing.assert_close(forward, divergence_score(at, "forward_kl", 0.5), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(reverse, at, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"f_alpha": 0.3}, "f_alpha would not be used: it belongs to alpha_divergence, not reverse_kl"),
        ({"f_divergence": "alpha_divergence", "f_alpha": 1.0}, "f_alpha must be finite and not 1"),
        ({"f_divergence": "alpha_divergence", "f_alpha": math.inf}, "f_alpha must be finite and not 1"),
    ],
)
def test_mistakes(settings, message):
    with pytest.raises(ValueError, match=message):
        DPO(**settings)
