"""Step two of an objective, the score: what is compared, a number of nats for each pair."""

from jaxtyping import Float
from torch import Tensor

from align.objectives.logps import PairLogps


def log_ratio_margin(policy: PairLogps, reference: PairLogps) -> Float[Tensor, " pairs"]:
    """Return how much more the policy moved towards the chosen than towards the rejected, in nats.

    ``(log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))``: 0 where policy and reference agree.
    """
    return (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
