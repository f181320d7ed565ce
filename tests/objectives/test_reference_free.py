"""SimPO, AlphaPO, CPO, SLiC-HF and RRHF by hand, and what shifting both sides does to them."""

import math

import pytest
import torch
from hypothesis import given

from align.objectives.reference_free import CPO, AlphaPO, SimPO
from tests.objectives.batches import pairs
from tests.objectives.laws import lengths, loss, nats, pair

POLICY = pair(-8.0, -6.0, 4, 2)
"""m = -2; a token -2 and -3: 1 apart."""


def softplus(x):
    return math.log1p(math.exp(x))


def test_by_hand():
    assert loss("simpo", POLICY, beta=2.0, gamma=0.5) == pytest.approx(softplus(-1.5))
    bent = ((1 - math.exp(1.0)) - (1 - math.exp(1.5))) / 0.5
    assert loss("alphapo", POLICY, beta=2.0, gamma=0.5, alpha=0.5) == pytest.approx(softplus(0.5 - 2 * bent))
    assert loss("cpo", POLICY, beta=0.5, nll_weight=0.25) == pytest.approx(softplus(1.0) + 2.0)
    assert loss("cpo", POLICY, beta=0.5, nll_weight=0.25, nll="mean") == pytest.approx(softplus(1.0) + 0.5)
    assert loss("cpo", POLICY, beta=0.5, nll_weight=0.0, loss_type="hinge") == pytest.approx(2.0)
    assert loss("cpo", POLICY, beta=0.25, nll_weight=0.0, loss_type="ipo") == pytest.approx(1.0)
    assert loss("slic_hf", POLICY, delta=1.0, nll_weight=0.1) == pytest.approx(3.0 + 0.8)
    assert loss("rrhf", POLICY, nll_weight=0.5, nll="mean") == pytest.approx(1.0)
    assert loss("rrhf", pair(-6.0, -8.0, 2, 4), nll_weight=0.0) == pytest.approx(1.0)


@given(nats, nats, lengths, lengths, nats)
def test_a_shift_of_both_means_changes_nothing_in_simpo_and_all_in_alphapo(a, b, n_w, n_l, shift):
    def shifted(by):
        return pair(a + by * n_w, b + by * n_l, n_w, n_l)

    assert loss("simpo", shifted(shift)) == pytest.approx(loss("simpo", shifted(0.0)), rel=1e-6, abs=1e-9)
    cpo = {"nll_weight": 0.0}
    moved = pair(a + shift, b + shift, n_w, n_l)
    assert loss("cpo", moved, **cpo) == pytest.approx(loss("cpo", shifted(0.0), **cpo), rel=1e-6, abs=1e-9)


@given(nats, nats, lengths, lengths)
def test_swapping_simpos_sides_changes_it_by_the_margin_at_gamma_0(a, b, n_w, n_l):
    here, there = loss("simpo", pair(a, b, n_w, n_l), gamma=0.0), loss("simpo", pair(b, a, n_l, n_w), gamma=0.0)
    assert here - there == pytest.approx(-2.0 * (a / n_w - b / n_l), rel=1e-6, abs=1e-6)


def test_rewards_are_what_is_compared():
    policy, _ = (batch.summed() for batch in pairs(0))
    chosen, rejected = SimPO(beta=3.0).rewards(policy, None)
    torch.testing.assert_close(chosen - rejected, 3.0 * (policy.mean_chosen - policy.mean_rejected))
    chosen, rejected = CPO(beta=0.5).rewards(policy, None)
    torch.testing.assert_close(chosen - rejected, 0.5 * (policy.chosen - policy.rejected))


def test_the_bend_must_bend():
    with pytest.raises(ValueError, match="alpha must not be 0; the limit is objective simpo"):
        AlphaPO(alpha=0.0)
