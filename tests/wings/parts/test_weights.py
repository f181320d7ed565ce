"""Shares by their closed form, kept by the sample's number; weights of mean one."""

import pytest
import torch

from align.wings.parts import weights
from align.wings.parts.weights import SampleWeights, to_mean_one


def test_shares_begin_equal():
    assert SampleWeights(4, terms=3)(torch.tensor([2])).tolist() == [pytest.approx([1 / 3] * 3)]


def test_a_step_multiplies_and_renormalises():
    weights, index = SampleWeights(5, rate=0.3), torch.tensor([4, 1])
    losses = torch.tensor([[1.0, 2.0], [0.5, -1.0]])
    before = weights(index)
    raised = before * (0.3 * losses).exp()
    torch.testing.assert_close(weights.update(index, losses), raised / raised.sum(1, keepdim=True))


def test_many_steps_are_the_sigmoid_of_the_summed_difference():
    weights, index = SampleWeights(3, rate=0.1), torch.tensor([0, 1, 2])
    history = torch.randn(20, 3, 2, dtype=torch.float64)
    for losses in history:
        weights.update(index, losses)
    closed = torch.sigmoid(0.1 * (history[..., 0] - history[..., 1]).sum(0))
    torch.testing.assert_close(weights(index)[:, 0], closed.float())


def test_every_process_takes_the_steps_of_all(monkeypatch):
    alone, together = SampleWeights(4, rate=0.5), SampleWeights(4, rate=0.5)
    losses = torch.randn(4, 2)
    alone.update(torch.arange(4), losses)
    monkeypatch.setattr(weights, "processes", lambda: 2)
    monkeypatch.setattr(
        weights, "gather_with_gradient", lambda rows: torch.arange(4) if rows.ndim == 1 else 0.5 * losses.double()
    )
    found = together.update(torch.tensor([2, 3]), losses[2:])
    torch.testing.assert_close(together.logits, alone.logits)
    torch.testing.assert_close(found, alone(torch.tensor([2, 3])))


def test_shares_are_kept_with_the_network():
    kept = SampleWeights(3)
    kept.update(torch.tensor([1]), torch.tensor([[5.0, 0.0]]))
    other = SampleWeights(3)
    other.load_state_dict(kept.state_dict())
    assert torch.equal(other(torch.arange(3)), kept(torch.arange(3)))


def test_a_step_of_some_leaves_the_others():
    weights = SampleWeights(3)
    weights.update(torch.tensor([1]), torch.tensor([[5.0, 0.0]]))
    found = weights(torch.arange(3))
    assert found[[0, 2]].tolist() == [[0.5, 0.5], [0.5, 0.5]]
    assert found[1, 0] > 0.99


def test_a_rate_of_zero_leaves_equal_shares():
    weights = SampleWeights(2, rate=0.0)
    assert weights.update(torch.tensor([0]), torch.tensor([[9.0, -9.0]])).tolist() == [[0.5, 0.5]]


def test_shares_have_no_gradient():
    losses = torch.randn(2, 2, requires_grad=True)
    assert not SampleWeights(2).update(torch.tensor([0, 1]), losses).requires_grad
    assert not to_mean_one(losses[:, 0]).requires_grad


def test_weights_of_mean_one_by_hand():
    scores = torch.tensor([0.0, 1.0, 3.0], dtype=torch.float64)
    raised = torch.exp(2 * scores)
    torch.testing.assert_close(to_mean_one(scores, 2.0), raised / raised.mean())
    assert to_mean_one(scores, 0.0).tolist() == pytest.approx([1, 1, 1])
    torch.testing.assert_close(to_mean_one(scores + 700), to_mean_one(scores))  # only differences count
