import pytest
import torch
import torch.nn.functional as F
from torch import nn

from align.wings.networks import MLP, ConvEncoder, Projected, parameters_of, seeded


@pytest.mark.parametrize(("channels", "depth", "size"), [(1, 3, 28), (3, 2, 17), (1, 5, 8)])
def test_the_encoder_gives_features_of_any_size(channels, depth, size):
    net = ConvEncoder(channels, width=4, features=10, depth=depth)
    assert net(torch.rand(3, channels, size, size)).shape == (3, 10)
    assert net.features == 10
    convolutions = [layer for layer in net.layers if isinstance(layer, nn.Conv2d)]
    assert [layer.out_channels for layer in convolutions] == [*(4 * 2**i for i in range(depth - 1)), 10]


def test_the_encoders_features_are_means_over_places():
    net = ConvEncoder(1, width=4, features=6).eval()
    images = torch.rand(2, 1, 16, 16)
    maps = net.layers(images)
    assert maps.shape == (2, 6, 2, 2)
    torch.testing.assert_close(net(images), maps.flatten(2).mean(2))
    assert (net(images) >= 0).all()


@pytest.mark.parametrize("norm", [True, False])
def test_an_mlp_is_linear_layers_with_relu_between(norm):
    net = MLP(12, 8, 5, 3, norm=norm).eval()
    images = torch.rand(4, 3, 2, 2)
    found = images.flatten(1)
    linear = [layer for layer in net.layers if isinstance(layer, nn.Linear)]
    norms = [layer for layer in net.layers if isinstance(layer, nn.BatchNorm1d)]
    assert len(norms) == (2 if norm else 0)
    for place, layer in enumerate(linear):
        found = layer(found)
        if place < 2:
            found = F.relu(norms[place](found) if norm else found)
    torch.testing.assert_close(net(images), found)


def test_an_mlp_of_two_widths_is_linear():
    net = MLP(4, 3)
    assert parameters_of(net) == 4 * 3 + 3
    a, b = torch.randn(2, 5, 4)
    torch.testing.assert_close(net(a) + net(b) - net(torch.zeros(5, 4)), net(a + b))


def test_projected_returns_features_and_what_the_head_makes_of_them():
    net = Projected(MLP(4, 3), MLP(3, 2))
    inputs = torch.rand(5, 4)
    features, embeddings = net(inputs)
    assert torch.equal(features, net.encoder(inputs))
    assert torch.equal(embeddings, net.head(features))


def test_frozen_numbers_are_not_counted():
    net = MLP(4, 3, 2)
    assert parameters_of(net) == 4 * 3 + 3 + 3 * 2 + 2
    net.layers[1].requires_grad_(False)
    assert parameters_of(net) == 3 * 2 + 2


def test_seeded_networks_start_alike_and_leave_the_generator():
    torch.manual_seed(5)
    before = torch.rand(3)
    torch.manual_seed(5)
    with seeded(1):
        first = MLP(4, 3)
    after = torch.rand(3)
    with seeded(1):
        second = MLP(4, 3)
    with seeded(2):
        other = MLP(4, 3)
    assert torch.equal(before, after)
    assert torch.equal(first.layers[1].weight, second.layers[1].weight)
    assert not torch.equal(first.layers[1].weight, other.layers[1].weight)


def test_seeded_leaves_the_generator_though_the_block_fails():
    torch.manual_seed(5)
    before = torch.rand(3)
    torch.manual_seed(5)
    with pytest.raises(KeyError), seeded(1):
        raise KeyError
    assert torch.equal(before, torch.rand(3))
