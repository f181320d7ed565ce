import torch

from align.models.beside import joined, without


def test_what_is_joined_is_in_the_graph_and_changes_nothing():
    output, beside = torch.randn(3, requires_grad=True), torch.randn(2, requires_grad=True)
    found = joined(output, beside)
    assert torch.equal(found, output)
    (found * torch.arange(3.0)).sum().backward()
    assert output.grad.tolist() == [0, 1, 2]
    assert beside.grad.tolist() == [0, 0]


def test_weights_beside_are_left_out_by_name():
    state = dict.fromkeys(["a.weight", "a.head.weight", "head.bias", "a.head_2.weight"], torch.zeros(1))
    assert list(without(state, "head")) == ["a.weight", "a.head_2.weight"]
