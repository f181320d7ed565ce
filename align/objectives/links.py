"""Step three of an objective, the link: from a score to the loss of a pair."""

from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F


def logistic(z: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
    """Return ``-log sigmoid(z)``: log 2 at 0, linear where z is very negative, 0 in the limit of large z."""
    return -F.logsigmoid(z)
