"""Length, a floor, an offset, a weaker rejected side: by hand."""

import math

import pytest
import torch
from hypothesis import given

from align.objectives.registry import OBJECTIVES
from tests.objectives.laws import loss, nats, pair

SCORED = {"chosen_scores": 3.0, "rejected_scores": 1.0}


def softplus(x):
    return math.log1p(math.exp(x))


def test_r_dpo_counts_tokens_as_margin():
    """D = 3, 4 - 2 tokens more: beta 3 + alpha 2."""
    found = loss("r_dpo", pair(-8.0, -13.0, 4, 2), pair(-10.0, -12.0, 4, 2), beta=0.1, alpha=0.25)
    assert found == pytest.approx(softplus(-0.8))


def test_dpop_charges_what_the_chosen_lost():
    """The chosen fell by 2 nats, the rejected by 5: D = 3, minus 2 lambda."""
    found = loss("dpop", pair(-12.0, -17.0), pair(-10.0, -12.0), beta=0.1, lam=5.0)
    assert found == pytest.approx(softplus(-0.1 * (3 - 10)))


@given(nats, nats, nats, nats)
def test_dpop_is_dpo_while_the_chosen_is_not_below_its_reference(a, b, a0, b0):
    policy, reference = pair(max(a, a0), b), pair(min(a, a0), b0)
    assert loss("dpop", policy, reference) == pytest.approx(loss("dpo", policy, reference))


def test_odpo_asks_for_more_where_scores_differ_more():
    """D = 3, gap 2: log 2 or 2."""
    policy, reference = pair(-8.0, -13.0, **SCORED), pair(-10.0, -12.0)
    assert loss("odpo", policy, reference, alpha=0.5) == pytest.approx(softplus(0.5 * math.log(2) - 0.3))
    assert loss("odpo", policy, reference, alpha=0.5, scale="linear") == pytest.approx(softplus(1.0 - 0.3))


def test_odpo_says_which_gap_has_no_logarithm():
    chosen, rejected = torch.tensor([1.0, 2.0]), torch.tensor([1.0, 0.5])
    ((bad, says),) = OBJECTIVES.build("odpo").score_faults(chosen, rejected)
    assert bad.tolist() == [True, False]
    assert "chosen_score must be above rejected_score" in says
    assert OBJECTIVES.build("odpo", scale="linear").score_faults(chosen, rejected) == []
    equal = pair(-8.0, -13.0, chosen_scores=1.0, rejected_scores=1.0)
    assert loss("odpo", equal, equal, scale="linear") == pytest.approx(math.log(2))


def test_dpo_shift_weakens_the_rejected():
    """h_w = 2, h_l = -1: 2 + lambda."""
    found = loss("dpo_shift", pair(-8.0, -13.0), pair(-10.0, -12.0), beta=0.1, lam=0.5)
    assert found == pytest.approx(softplus(-0.25))
