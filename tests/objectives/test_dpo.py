"""DPO against the paper's formula retyped, numbers worked out by hand, laws, and TRL."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from align.objectives.dpo import DPO, dpo_loss
from align.objectives.logps import PairLogps

nats = st.floats(-200, 0, allow_nan=False)


def pair_logps(chosen: torch.Tensor, rejected: torch.Tensor) -> PairLogps:
    ones = torch.ones(len(chosen), dtype=torch.long)
    return PairLogps(chosen=chosen, rejected=rejected, chosen_lengths=ones, rejected_lengths=ones)


def random_pairs(seed: int, n: int = 64) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [-50 * torch.rand(n, generator=generator, dtype=torch.float64) for _ in range(4)]


def equation_7(
    pi_w: torch.Tensor, pi_l: torch.Tensor, ref_w: torch.Tensor, ref_l: torch.Tensor, beta: float
) -> torch.Tensor:
    """The paper's Eq. 7, from probabilities: -log sigma(beta log pi_w/ref_w - beta log pi_l/ref_l)."""
    u = beta * torch.log(pi_w.exp() / ref_w.exp()) - beta * torch.log(pi_l.exp() / ref_l.exp())
    return -torch.log(1 / (1 + torch.exp(-u)))


@pytest.mark.parametrize("beta", [0.05, 0.1, 0.5])
def test_value_and_gradient_equal_the_papers_equation(beta):
    a, b, a0, b0 = (t.requires_grad_() for t in random_pairs(0))
    ours = DPO(beta=beta)(pair_logps(a, b), pair_logps(a0, b0))
    ours_gradient = torch.autograd.grad(ours.sum(), (a, b))
    theirs = equation_7(a, b, a0, b0, beta)
    theirs_gradient = torch.autograd.grad(theirs.sum(), (a, b))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-12)
    for mine, paper in zip(ours_gradient, theirs_gradient, strict=True):
        torch.testing.assert_close(mine, paper, rtol=1e-10, atol=1e-13)


def test_gradient_is_the_papers_section_4():
    """dl/d log pi_w = -beta sigma(r_l - r_w), and the rejected side its negative."""
    a, b, a0, b0 = random_pairs(1)
    a.requires_grad_()
    b.requires_grad_()
    loss = DPO(beta=0.3)(pair_logps(a, b), pair_logps(a0, b0)).sum()
    grad_w, grad_l = torch.autograd.grad(loss, (a, b))
    weight = 1 / (1 + torch.exp(0.3 * (a - a0) - 0.3 * (b - b0)))
    torch.testing.assert_close(grad_w, -0.3 * weight, rtol=1e-12, atol=0)
    torch.testing.assert_close(grad_l, 0.3 * weight, rtol=1e-12, atol=0)


def test_numbers_by_hand():
    """Margin 0: log 2.  Margin 10 at beta 0.1: log(1 + e^-1) = 0.31326.  Margin -10: that plus 1."""
    margins = torch.tensor([0.0, 10.0, -10.0], dtype=torch.float64)
    expected = torch.tensor([math.log(2), 0.3132616875182228, 1.3132616875182228], dtype=torch.float64)
    torch.testing.assert_close(dpo_loss(margins, beta=0.1), expected, rtol=1e-12, atol=0)


@given(nats, nats, nats, nats, nats)
def test_a_shift_of_policy_and_reference_together_changes_nothing(a, b, a0, b0, shift):
    def loss(offset: float) -> torch.Tensor:
        policy = pair_logps(*(torch.tensor([x + offset], dtype=torch.float64) for x in (a, b)))
        reference = pair_logps(*(torch.tensor([x + offset], dtype=torch.float64) for x in (a0, b0)))
        return DPO()(policy, reference)

    torch.testing.assert_close(loss(shift), loss(0.0), rtol=1e-9, atol=1e-9)


@given(nats, nats, nats, nats)
def test_swapping_the_sides_changes_the_loss_by_the_margin(a, b, a0, b0):
    """-ls(u) + ls(-u) = -u, so loss(w, l) - loss(l, w) = -beta h."""
    a, b, a0, b0 = (torch.tensor([x], dtype=torch.float64) for x in (a, b, a0, b0))
    forward = DPO(beta=0.2)(pair_logps(a, b), pair_logps(a0, b0))
    backward = DPO(beta=0.2)(pair_logps(b, a), pair_logps(b0, a0))
    torch.testing.assert_close(forward - backward, -0.2 * ((a - a0) - (b - b0)), rtol=1e-9, atol=1e-9)


def test_finite_in_float32_at_extremes():
    for values in ((0.0, -1e4), (-1e4, 0.0), (-1e-7, -1e-7)):
        a, b = (torch.tensor([v], requires_grad=True) for v in values)
        zero = torch.zeros(1)
        loss = DPO()(pair_logps(a, b), pair_logps(zero, zero))
        loss.sum().backward()
        assert torch.isfinite(loss).all()
        assert torch.isfinite(a.grad).all()


def test_rewards_are_beta_times_log_ratios():
    a, b, a0, b0 = random_pairs(2)
    chosen, rejected = DPO(beta=0.25).rewards(pair_logps(a, b), pair_logps(a0, b0))
    torch.testing.assert_close(chosen, 0.25 * (a - a0))
    torch.testing.assert_close(rejected, 0.25 * (b - b0))


def test_a_reference_is_needed():
    a, b, *_ = random_pairs(3)
    with pytest.raises(ValueError, match="compares with a reference"):
        DPO()(pair_logps(a, b), None)


@pytest.mark.parametrize("beta", [0.0, -0.1, float("nan"), float("inf")])
def test_beta_must_be_positive(beta):
    with pytest.raises(ValueError, match="beta must be greater than 0"):
        DPO(beta=beta)
