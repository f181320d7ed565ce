"""A coefficient of 0 is the baseline to the last bit; another adds its distance, and none of it reaches the target."""

import pytest
import torch
from torch import nn

from align.wings.parts.auxiliary import AuxiliaryTerm


def network():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)).double()


def squares(inside, target):
    return (inside - target).square().sum(1)


INPUTS = torch.randn(5, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
TARGET = torch.randn(5, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def gradients(net, loss):
    return torch.autograd.grad(loss, list(net.parameters()))


def never():
    raise AssertionError("the target was made")


def test_a_coefficient_of_zero_leaves_outputs_and_gradients():
    net, baseline = network(), network()
    term = AuxiliaryTerm(net[0], squares, 0.0)
    said = net(INPUTS)
    assert torch.equal(said, baseline(INPUTS))
    assert not net[0]._forward_hooks
    loss = (said.square().sum(1) + term(never)).mean()
    for mine, theirs in zip(
        gradients(net, loss), gradients(baseline, baseline(INPUTS).square().sum(1).mean()), strict=True
    ):
        assert torch.equal(mine, theirs)
    term.remove()


def test_a_term_is_the_formula_in_value_and_gradient():
    net, baseline = network(), network()
    term = AuxiliaryTerm(net[0], squares, 0.5)
    said = net(INPUTS)
    found = term(lambda: TARGET)
    inside = baseline[0](INPUTS)
    expected = 0.5 * ((inside - TARGET) ** 2).sum(1)
    torch.testing.assert_close(found, expected)
    theirs = gradients(baseline, (baseline[2](inside.relu()).square().sum(1) + expected).mean())
    for mine, other in zip(gradients(net, (said.square().sum(1) + found).mean()), theirs, strict=True):
        torch.testing.assert_close(mine, other)


def test_the_target_gets_no_gradient():
    net = network()
    term = AuxiliaryTerm(net[0], squares, 1.0)
    net(INPUTS)
    target = TARGET.clone().requires_grad_()
    loss = term(lambda: 2 * target).sum()
    assert torch.autograd.grad(loss, target, allow_unused=True)[0] is None


def test_the_first_of_several_outputs_is_read():
    class Pair(nn.Module):
        def forward(self, x):
            return x, 9 * x

    net = Pair()
    term = AuxiliaryTerm(net, squares, 1.0)
    net(TARGET)
    assert term(lambda: TARGET).tolist() == [0] * 5


def test_a_forward_is_read_once():
    net = network()
    term = AuxiliaryTerm(net[0], squares, 1.0)
    with pytest.raises(ValueError, match="was not called"):
        term(lambda: TARGET)
    net(INPUTS)
    term(lambda: TARGET)
    with pytest.raises(ValueError, match="was not called"):
        term(lambda: TARGET)


def test_a_removed_term_reads_nothing():
    net = network()
    term = AuxiliaryTerm(net[0], squares, 1.0)
    term.remove()
    net(INPUTS)
    with pytest.raises(ValueError, match="was not called"):
        term(lambda: TARGET)
