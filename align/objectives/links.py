"""Step three of an objective, the link: from a score to the loss of a pair."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def logistic(z: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Return ``-log sigmoid(z)``: log 2 at 0, linear where z is very negative, 0 in the limit of large z."""
    return -F.logsigmoid(z)


def smoothed_logistic(z: Float[Tensor, " pairs"], label_smoothing: float) -> Float[Tensor, " pairs"]:
    """Return the expected :func:`logistic` loss where a label is wrong with probability ``label_smoothing``."""
    return (1 - label_smoothing) * logistic(z) + label_smoothing * logistic(-z)


def hinge(z: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Return ``max(0, 1 - z)``: nothing left to lose once z reaches 1."""
    return torch.relu(1 - z)


def squared(z: Float[Tensor, " pairs"], target: float) -> Float[Tensor, " pairs"]:
    """Return ``(z - target)^2``: both less and more than the target cost something."""
    return (z - target).square()
