"""Weights of samples that are kept from step to step by the sample's number, detached and normalised."""

import torch
from torch import Tensor, nn

from align.trainers.base import gather_with_gradient
from align.wings.processes import processes


class SampleWeights(nn.Module):
    """Shares over the terms of each sample's loss, moved by mirror ascent (as in AdaWAC, Yang et al. 2023).

    Shares of sample i start equal; a step multiplies each by ``exp(rate * loss)`` of its term and renormalises, so that
    after T steps they are the softmax of ``rate`` times the summed losses. As a module of the network that is trained
    they are kept in its checkpoints.

    Args:
        samples: how many.
        terms: of each sample's loss.
        rate: of the ascent.
    """

    def __init__(self, samples: int, terms: int = 2, rate: float = 1.0) -> None:
        super().__init__()
        self.logits: Tensor
        self.register_buffer("logits", torch.zeros(samples, terms, dtype=torch.float64))
        self.rate = rate

    def forward(self, index: Tensor) -> Tensor:
        """Return the shares of some samples, of shape (samples, terms), without gradient."""
        return self.logits[index].softmax(1).float()

    def update(self, index: Tensor, losses: Tensor) -> Tensor:
        """Take a step for some samples and return their new shares; every process takes those of all.

        Args:
            index: of shape (n,).
            losses: of shape (n, terms).
        """
        step = self.rate * losses.detach().double()
        if processes() > 1:
            self.logits[gather_with_gradient(index)] += gather_with_gradient(step)
        else:
            self.logits[index] += step
        found: Tensor = self(index)
        return found


def to_mean_one(scores: Tensor, sharpness: float = 1.0) -> Tensor:
    """Return ``exp(sharpness * scores)`` scaled to a mean of 1, without gradient (as in GenView, Li et al. 2024)."""
    weights = (sharpness * scores.detach()).softmax(0)
    return weights * len(scores)
