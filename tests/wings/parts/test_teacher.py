"""Moving means by their formula, snapshots that stay, and no gradient ever."""

import pytest
import torch
from torch import nn

from align.wings.parts.teacher import Teacher


def network(seed=0):
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2))


def test_a_teacher_begins_as_a_copy_of_its_own():
    net = network()
    teacher = Teacher(net, 0.9)
    for mine, theirs in zip(teacher.copy.parameters(), net.parameters(), strict=True):
        assert torch.equal(mine, theirs)
        assert mine is not theirs
        assert theirs.requires_grad
        assert not mine.requires_grad


def test_the_moving_mean_is_the_formula():
    net = network().double()
    teacher = Teacher(net, 0.75)
    expected = [parameter.detach().clone() for parameter in net.parameters()]
    for step in range(1, 5):
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.add_(step)
        teacher.follow(net)
        expected = [
            0.75 * mean + 0.25 * parameter.detach() for mean, parameter in zip(expected, net.parameters(), strict=True)
        ]
    for mine, by_hand in zip(teacher.copy.parameters(), expected, strict=True):
        torch.testing.assert_close(mine.detach(), by_hand)


def test_a_decay_of_zero_is_the_network_itself():
    teacher, net = Teacher(network(), 0.0), network(1)
    teacher.follow(net)
    for mine, theirs in zip(teacher.copy.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(mine, theirs.detach())


def test_a_decay_may_depend_on_the_progress():
    net = nn.Linear(1, 1, bias=False)
    nn.init.zeros_(net.weight)
    teacher = Teacher(net, lambda progress: 0.5 + 0.5 * progress)
    nn.init.ones_(net.weight)
    teacher.follow(net, 1.0)
    assert teacher.copy.weight.item() == 0
    teacher.follow(net, 0.0)
    assert teacher.copy.weight.item() == 0.5


def test_buffers_are_taken_as_they_are():
    net = network()
    teacher = Teacher(net, 0.9)
    net(torch.randn(8, 3))
    teacher.follow(net)
    assert torch.equal(teacher.copy[1].running_mean, net[1].running_mean)
    assert teacher.copy[1].num_batches_tracked.item() == 1


def test_a_snapshot_stays():
    net = network()
    teacher = Teacher(net)
    inputs = torch.randn(5, 3)
    before = teacher(inputs)
    with torch.no_grad():
        net[0].weight.add_(1)
    assert torch.equal(teacher(inputs), before)
    with pytest.raises(ValueError, match="a snapshot follows nothing"):
        teacher.follow(net)


def test_no_gradient_goes_through_a_teacher():
    inputs = torch.randn(5, 3, requires_grad=True)
    said = Teacher(network(), 0.9)(inputs)
    assert not said.requires_grad
    assert not [p for p in Teacher(network()).parameters() if p.requires_grad]


def test_a_teacher_within_a_network_in_training_stays_in_evaluation():
    teacher = Teacher(network(), 0.9)
    whole = nn.ModuleList([teacher])
    whole.train()
    inputs = torch.randn(5, 3)
    assert not teacher.copy.training
    assert torch.equal(teacher(inputs), teacher(inputs))  # no dropout
    assert teacher.copy[1].num_batches_tracked.item() == 0
