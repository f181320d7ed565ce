"""Weights of samples that are kept from step to step by the sample's number, detached and normalised."""

import torch
from torch import Tensor


class SampleWeights:
    """Shares over the terms of each sample's loss, moved by mirror ascent (as in AdaWAC, Yang et al. 2023).

    Shares of sample i start equal; a step multiplies each by ``exp(rate * loss)`` of its term and renormalises, so that
    after T steps they are the softmax of ``rate`` times the summed losses.

    Args:
        samples: how many.
        terms: of each sample's loss.
        rate: of the ascent.
    """

    def __init__(self, samples: int, terms: int = 2, rate: float = 1.0) -> None:
        self.logits = torch.zeros(samples, terms, dtype=torch.float64)
        self.rate = rate

    def __call__(self, index: Tensor) -> Tensor:
        """Return the shares of some samples, of shape (samples, terms), without gradient."""
        return self.logits[index.cpu()].softmax(1).to(index.device, torch.float32)

    def update(self, index: Tensor, losses: Tensor) -> Tensor:
        """Take a step for some samples and return their new shares.

        Args:
            index: of shape (n,).
            losses: of shape (n, terms).
        """
        self.logits[index.cpu()] += self.rate * losses.detach().double().cpu()
        return self(index)


def to_mean_one(scores: Tensor, sharpness: float = 1.0) -> Tensor:
    """Return ``exp(sharpness * scores)`` scaled to a mean of 1, without gradient (as in GenView, Li et al. 2024)."""
    weights = (sharpness * scores.detach()).softmax(0)
    return weights * len(scores)
