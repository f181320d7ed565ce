"""D2O against the formula retyped from the paper, and the laws that follow from it."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.objectives.dispreference import D2O
from align.objectives.dpo import DPO
from tests.objectives.laws import loss, nats, pair


def log_sigma(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def test_by_hand():
    """-log s(0.5 * (-1 + 3) - 0.2 * (-6 + 8)) = -log s(0.6)."""
    found = loss("d2o", pair(-1.0, -6.0), pair(-3.0, -8.0), beta=0.5, alpha=0.2)
    assert found == pytest.approx(-log_sigma(0.6))


def test_at_the_start_u_is_0():
    assert loss("d2o", pair(-4.0, -7.0), pair(-4.0, -7.0), beta=0.3, alpha=0.9) == pytest.approx(math.log(2))


@given(nats, nats, nats, nats)
def test_one_sample_is_dpo(a, b, a0, b0):
    policy, reference = pair(a, b), pair(a0, b0)
    assert loss("d2o", policy, reference, beta=0.3, alpha=0.3) == pytest.approx(
        loss("dpo", policy, reference, beta=0.3), rel=1e-6, abs=1e-9
    )


@given(st.lists(nats, min_size=2, max_size=11), nats)
def test_the_loss_is_at_most_the_mean_of_dpo_losses_over_the_samples(samples, negative):
    """log sigmoid is concave: that of a mean is at least the mean of those."""
    reference = pair(0.0, 0.0)
    together = loss("d2o", pair(sum(samples) / len(samples), negative), reference, beta=0.1, alpha=0.1)
    apart = [loss("dpo", pair(sample, negative), reference, beta=0.1) for sample in samples]
    assert together <= sum(apart) / len(apart) + 1e-6 * max(1, abs(together))


def test_pulls():
    """Of the mean: beta s(-u); so of each of K samples beta s(-u) / K. Of the negative: alpha s(-u)."""
    samples = torch.tensor([[-1.0, -4.0, 2.0]], dtype=torch.float64, requires_grad=True)
    negative = torch.tensor([-6.0], dtype=torch.float64, requires_grad=True)
    policy = replace(pair(0.0, 0.0), chosen=samples.mean(1), rejected=negative)
    D2O(beta=0.5, alpha=0.2)(policy, pair(-3.0, -8.0)).sum().backward()
    u = 0.5 * (-1.0 + 3.0) - 0.2 * (-6.0 + 8.0)
    weight = 1 / (1 + math.exp(u))
    assert samples.grad[0].tolist() == pytest.approx([-0.5 / 3 * weight] * 3)
    assert float(negative.grad) == pytest.approx(0.2 * weight)


def test_rewards_are_the_parts_of_u():
    policy, reference = pair(-1.0, -6.0), pair(-3.0, -8.0)
    chosen, rejected = D2O(beta=0.5, alpha=0.2).rewards(policy, reference)
    assert torch.allclose(chosen - rejected, torch.tensor([0.6], dtype=chosen.dtype))
    assert DPO().reward_scale == 0.1


@pytest.mark.parametrize("settings", [{"alpha": 0.0}, {"beta": -1.0}])
def test_scales_are_positive(settings):
    with pytest.raises(ValueError, match="must be greater than 0"):
        D2O(**settings)
