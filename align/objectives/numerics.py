"""Functions that stay finite where formulas do not, with the bounds named: docs/objectives.md lists who uses them."""

import math

import torch
from jaxtyping import Float
from torch import Tensor

NEAREST_TO_CERTAIN = 1e-8
"""log p above minus this counts as certain: log(1 - p) goes on as a straight line from there, so that its gradient at
p = 1 is -1e8 and not infinite."""

LARGEST_EXPONENT = 30.0
"""exp(x) goes on as a straight line above this: e^30 = 1.07e13, and so is the gradient from there on."""

_LOG_2 = math.log(2.0)
_AT_BOUND = math.log(-math.expm1(-NEAREST_TO_CERTAIN))
_SLOPE_AT_BOUND = -math.exp(-NEAREST_TO_CERTAIN) / -math.expm1(-NEAREST_TO_CERTAIN)


def log1mexp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``log(1 - exp(x))`` for x <= 0: the log-probability that something of log-probability x does not happen.

    Two branches keep full precision (Maechler, 2012): ``log(-expm1(x))`` near 0, ``log1p(-exp(x))`` below -log 2.
    Above ``-NEAREST_TO_CERTAIN`` it is the tangent at that bound.

    Examples:
        >>> log1mexp(torch.tensor([-0.6931472, -2.0]))
        tensor([-0.6931, -0.1454])
    """
    inside = x.clamp(max=-NEAREST_TO_CERTAIN)
    near = inside > -_LOG_2
    branch_near = torch.log(-torch.expm1(torch.where(near, inside, -_LOG_2)))
    branch_far = torch.log1p(-torch.exp(torch.where(near, -_LOG_2, inside)))
    tangent = _AT_BOUND + _SLOPE_AT_BOUND * (x + NEAREST_TO_CERTAIN)
    return torch.where(x > -NEAREST_TO_CERTAIN, tangent, torch.where(near, branch_near, branch_far))


def bounded_exp(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return ``exp(x)``, above ``LARGEST_EXPONENT`` its tangent there: still rising, never infinite.

    Examples:
        >>> bounded_exp(torch.tensor([0.0, 31.0])) / torch.tensor([1.0, math.exp(30)])
        tensor([1., 2.])
    """
    below = x.clamp(max=LARGEST_EXPONENT)
    return below.exp() + math.exp(LARGEST_EXPONENT) * torch.relu(x - LARGEST_EXPONENT)


def log_odds(x: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Return the log-odds ``log(p / (1 - p))`` of something of log-probability x; see :func:`log1mexp` at p = 1.

    Examples:
        >>> log_odds(torch.tensor([-0.6931472]))
        tensor([0.])
    """
    return x - log1mexp(x)
