import pytest
import torch
from torch import nn

from align.diagnostics.products import Vectors
from align.diagnostics.steps import Kept, Snapshot


def test_a_snapshot_knows_how_far_weights_moved():
    weight = nn.Parameter(torch.zeros(3))
    snapshot = Snapshot([weight])
    with torch.no_grad():
        weight += torch.tensor([1.0, 0.0, -2.0])
    assert snapshot.change(weight).tolist() == [1, 0, -2]


def test_changes_are_a_nat_of_log_probability_and_of_the_wanted_pairs():
    pieces = {1: [Vectors(torch.ones(2, 2, 3))], 2: [Vectors(2 * torch.ones(2, 2, 1))]}
    weights = torch.tensor([[0.5, -0.5], [2.0, 1.0]])
    kept = Kept(pieces=pieces, weights=weights, which=torch.tensor([True, False]))
    found = kept.along({1: torch.tensor([1.0, 1.0, 1.0]), 2: torch.tensor([0.5])})
    assert found[0].tolist() == pytest.approx([8.0, -8.0])
    assert len(found) == 1
