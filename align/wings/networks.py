"""Small networks that methods share where the paper's own is too large for a claim."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise

import torch
from torch import Tensor, nn

from align.wings.processes import BatchNorm1d, BatchNorm2d


class ConvEncoder(nn.Module):
    """Three or more convolutions with batch norm, each halving the picture, then the mean over places.

    Args:
        channels: of the pictures.
        width: of the first layer; each further one has twice as many, up to ``features`` in the last.
        features: width of what comes out.
        depth: layers.
    """

    def __init__(self, channels: int = 1, width: int = 32, features: int = 128, depth: int = 3) -> None:
        super().__init__()
        widths = [channels, *(width * 2**i for i in range(depth - 1)), features]
        layers: list[nn.Module] = []
        for into, out in pairwise(widths):
            layers += [nn.Conv2d(into, out, 3, stride=2, padding=1, bias=False), BatchNorm2d(out), nn.ReLU()]
        self.layers = nn.Sequential(*layers)
        self.features = features

    def forward(self, images: Tensor) -> Tensor:
        """Return features of shape (n, features)."""
        found: Tensor = self.layers(images).mean((2, 3))
        return found


class MLP(nn.Module):
    """Linear layers with ReLU between; pictures are flattened.

    Args:
        widths: of the input, of every hidden layer, and of the output.
        norm: batch norm before each ReLU.
    """

    def __init__(self, *widths: int, norm: bool = False) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Flatten()]
        for place, (into, out) in enumerate(pairwise(widths)):
            layers.append(nn.Linear(into, out))
            if place < len(widths) - 2:
                layers += [BatchNorm1d(out)] if norm else []
                layers.append(nn.ReLU())
        self.layers = nn.Sequential(*layers)

    def forward(self, inputs: Tensor) -> Tensor:
        """Return outputs of shape (n, last width)."""
        found: Tensor = self.layers(inputs)
        return found


class Projected(nn.Module):
    """An encoder and the head that a contrastive loss sees; what is used afterwards is the encoder's.

    Args:
        encoder: from pictures to features.
        head: from features to embeddings.
    """

    def __init__(self, encoder: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.encoder, self.head = encoder, head

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return features and embeddings."""
        features = self.encoder(images)
        return features, self.head(features)


def parameters_of(network: nn.Module) -> int:
    """Return how many numbers are trained."""
    return sum(p.numel() for p in network.parameters() if p.requires_grad)


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Seed torch inside the block, and leave its generator as it was: networks of two arms start alike."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield
