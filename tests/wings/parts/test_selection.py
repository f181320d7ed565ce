"""Budgets and axes by hand, the mass rule, and a threshold that gradients pass as if it were a sigmoid."""

import pytest
import torch

from align.wings.parts.selection import by_mass, largest, straight_through

TABLE = torch.tensor([[5.0, 1.0, 3.0], [2.0, 6.0, 4.0]])


def test_the_largest_by_hand():
    assert largest(TABLE, 2).tolist() == [[True, False, True], [False, True, True]]
    assert largest(TABLE, 1, "column").tolist() == [[True, False, False], [False, True, True]]
    assert largest(TABLE, 3, "all").tolist() == [[True, False, False], [False, True, True]]


@pytest.mark.parametrize(("axis", "most"), [("row", 7), ("column", 5), ("all", 35)])
def test_every_budget_is_met_exactly(axis, most):
    scores = torch.randn(5, 7)
    for budget in (0, 1, 3, most):
        chosen = largest(scores, budget, axis)
        assert chosen.shape == scores.shape
        counts = {"row": chosen.sum(1), "column": chosen.sum(0), "all": chosen.sum()[None]}[axis]
        assert set(counts.tolist()) == {budget}
    with pytest.raises(ValueError, match=f"a budget of {most + 1} does not fit: there are {most} a {axis}"):
        largest(scores, most + 1, axis)


def test_ties_do_not_break_the_budget():
    assert largest(torch.zeros(2, 4), 3).sum(1).tolist() == [3, 3]


def test_the_mass_by_hand():
    scores = torch.tensor([[1.0, 5.0, 0.0, 4.0], [2.5, 2.5, 2.5, 2.5]])
    assert by_mass(scores, 0.9).tolist() == [[False, True, False, True], [True, True, True, False]]
    assert by_mass(scores, 0.89).tolist() == [[False, True, False, False], [True, True, True, False]]


def test_how_many_are_kept_differs_from_row_to_row():
    peaked, flat = torch.tensor([8.0, 1.0, 0.5, 0.5]), torch.ones(4)
    assert by_mass(torch.stack([peaked, flat]), 0.8).sum(1).tolist() == [1, 3]


def test_the_mass_rule_is_the_longest_prefix_in_order():
    scores = torch.rand(64, 33, dtype=torch.float64)
    for share in (0.3, 0.7, 0.95):
        chosen = by_mass(scores, share)
        kept = (scores * chosen).sum(1) / scores.sum(1)
        below = scores.masked_fill(chosen, -1).max(1).values
        assert (kept <= share + 1e-6).all()
        assert (kept + below / scores.sum(1) > share).all()  # the next would be too much
        assert (scores.masked_fill(~chosen, 2).min(1).values >= below).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_share_of_one_selects_all_above_zero(dtype):
    scores = torch.rand(20, 3000, dtype=dtype) ** 8
    scores[:, ::7] = 0
    assert torch.equal(by_mass(scores, 1.0), scores > 0)


def test_the_scale_of_scores_does_not_matter():
    scores = torch.rand(20, 30)
    for scale in (2.0**-60, 2.0**60):
        assert torch.equal(by_mass(scores * scale, 0.7), by_mass(scores, 0.7))


def test_nothing_and_the_only_one():
    scores = torch.tensor([[0.0, 0.0, 0.0], [0.0, 9.0, 1.0]])
    assert by_mass(scores, 0.5).tolist() == [[False, False, False], [False, True, False]]


def test_the_gate_is_hard_exactly():
    logits = torch.randn(10_000)
    gates = straight_through(logits)
    assert torch.equal(gates, (logits.sigmoid() > 0.5).float())
    assert straight_through(torch.tensor([0.0])).item() == 0  # at the threshold it is shut
    assert straight_through(torch.tensor([0.0]), threshold=0.4).item() == 1


def test_the_gate_s_gradient_is_the_sigmoid_s():
    logits = torch.randn(100, dtype=torch.float64, requires_grad=True)
    asked = torch.randn(100, dtype=torch.float64)
    (found,) = torch.autograd.grad((straight_through(logits) * asked).sum(), logits)
    soft = logits.detach().sigmoid()
    torch.testing.assert_close(found, asked * soft * (1 - soft))
