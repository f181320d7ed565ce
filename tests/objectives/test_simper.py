"""SimPER by hand: geometric means of probabilities, and a pull that fades where they are small."""

import math

import pytest

from align.objectives.incentives import incentives
from align.objectives.simper import SimPER
from tests.objectives.batches import pairs
from tests.objectives.laws import loss, pair


def test_by_hand():
    """Mean probabilities 1/2 and 1/5."""
    assert loss("simper", pair(2 * math.log(0.5), 3 * math.log(0.2), 2, 3)) == pytest.approx(0.2 - 0.5)


def test_it_lies_between_minus_one_and_one_and_lets_unlikely_completions_be():
    policy, _ = pairs(0)
    assert SimPER().of_tokens(policy).abs().max() <= 1
    likely, unlikely = (incentives(SimPER(), pairs(1, scale=scale)[0]).d_w.mean() for scale in (0.1, 8.0))
    assert likely > 5 * unlikely > 0
