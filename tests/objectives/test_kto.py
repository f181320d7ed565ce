"""KTO by hand: a value that saturates around a reference point that is not below 0."""

import math

import pytest
import torch

from align.objectives.kto import KTO
from align.objectives.logps import SequenceLogps
from tests.objectives.batches import formulas, pairs


def rows(logps, baseline=None):
    point = None if baseline is None else torch.tensor(baseline, dtype=torch.float64)
    return SequenceLogps(
        logps=torch.tensor(logps, dtype=torch.float64), lengths=torch.ones(len(logps), dtype=torch.long), baseline=point
    )


REFERENCE = rows([-10.0, -12.0])
BOTH = torch.tensor([True, False])


def sigmoid(x):
    return 1 / (1 + math.exp(-x))


def test_by_hand():
    """h = 3 and -1, z = 2, beta = 0.5: 1 - s(0.5) and 1 - s(1.5), with their weights."""
    objective = KTO(beta=0.5, desirable_weight=2.0, undesirable_weight=3.0)
    losses = objective.of_rows(rows([-7.0, -13.0], 2.0), REFERENCE, BOTH)
    assert losses.tolist() == pytest.approx([2 * (1 - sigmoid(0.5)), 3 * (1 - sigmoid(1.5))])


def test_the_reference_point_is_not_below_0():
    below, none = (KTO().of_rows(rows([-7.0, -13.0], z), REFERENCE, BOTH) for z in (-4.0, None))
    assert below.tolist() == none.tolist()


def test_the_cards_formula_with_a_reference_point():
    from dataclasses import replace

    objective = KTO(beta=0.4, desirable_weight=1.3)
    policy, reference = pairs(3)
    says = formulas(objective, "kto", policy, reference)
    says.names["z"] = 1.7
    point = torch.tensor(1.7, dtype=torch.float64)
    losses = objective(replace(policy.summed(), baseline=point), reference.summed())
    torch.testing.assert_close(losses, says(says.card.loss), rtol=1e-12, atol=1e-12)


def test_it_is_trained_on_single_completions():
    assert KTO().needs == ("reference", "mismatched")
