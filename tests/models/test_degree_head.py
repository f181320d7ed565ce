"""Degree heads against formulas retyped from their sources."""

import math

import pytest
import torch

from align.models.degree_head import DegreeHead, layer_states, pooled, rank_correlation


def test_cross_entropy_by_hand():
    head = DegreeHead(4, 3)
    logits = torch.tensor([[0.0, math.log(2), math.log(3)]])
    assert float(head.losses(logits, torch.tensor([1]))) == pytest.approx(-math.log(2 / 6), rel=1e-6)
    assert head.predicted(logits).tolist() == [2]


def test_coral_is_a_sum_over_thresholds():
    """Cao, Mirjalili and Raschka, equation 4: -sum_k [log s(g_k) y_k + log(1 - s(g_k)) (1 - y_k)]."""
    head = DegreeHead(4, 4, ordinal=True)
    logits = torch.tensor([[1.5, -0.5, -2.0]], dtype=torch.float64)

    def sigma(x):
        return 1 / (1 + math.exp(-x))

    expected = -(math.log(sigma(1.5)) + math.log(sigma(-0.5)) + math.log(1 - sigma(-2.0)))
    assert float(head.losses(logits, torch.tensor([2]))) == pytest.approx(expected)
    assert head.predicted(logits).tolist() == [1]


def test_coral_logits_are_parallel():
    head = DegreeHead(5, 4, ordinal=True, depth=2)
    logits = head(torch.randn(6, 5))
    assert torch.allclose(logits.diff(dim=1), head.thresholds.diff().expand(6, 2), atol=1e-6)


@pytest.mark.parametrize("ordinal", [False, True])
def test_degrees_that_can_be_told_are_learned(ordinal):
    torch.manual_seed(0)
    head = DegreeHead(3, 4, depth=2, ordinal=ordinal)
    degrees = torch.arange(40) % 4
    hidden = torch.randn(40, 3) * 0.1
    hidden[:, 0] += degrees
    optimizer = torch.optim.Adam(head.parameters(), 0.05)
    for _ in range(150):
        optimizer.zero_grad()
        head.losses(head(hidden), degrees).mean().backward()
        optimizer.step()
    assert (head.predicted(head(hidden)) == degrees).float().mean() > 0.95


def test_pooling():
    hidden = torch.arange(12.0).view(2, 3, 2)
    mask = torch.tensor([[False, True, False], [False, True, True]])
    assert pooled(hidden, mask, "last").tolist() == [[2, 3], [10, 11]]
    assert pooled(hidden, mask, "mean").tolist() == [[2, 3], [9, 10]]


def test_layers_that_are_not_there():
    states = [torch.zeros(1), torch.ones(1)]
    assert layer_states(states, -1) is states[1]
    with pytest.raises(ValueError, match=r"spo.head.layer 2: the model has 1 layers"):
        layer_states(states, 2)


def test_rank_correlation():
    degrees = torch.arange(3.0)
    assert rank_correlation(degrees, torch.tensor([-1.0, -2.0, -9.0])) == pytest.approx(-1)
    assert math.isnan(rank_correlation(degrees[:1], degrees[:1]))
    assert math.isnan(rank_correlation(degrees, torch.ones(3)))  # all the same have no order
    assert rank_correlation(torch.arange(4.0), torch.tensor([1.0, 1.0, 2.0, 3.0])) == pytest.approx(0.9486833)
