"""Step two of an objective, the score: what is compared, a number of nats for each pair."""

from jaxtyping import Float
from torch import Tensor

from align.objectives.logps import PairLogps


def log_ratios(
    policy: PairLogps, reference: PairLogps | None
) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
    """Return the log-ratios of policy over reference, of chosen and rejected: 0 where the two agree."""
    assert reference is not None
    return policy.chosen - reference.chosen, policy.rejected - reference.rejected


def log_ratio_margin(policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
    """Return how much more the policy moved towards the chosen than towards the rejected, in nats.

    ``(log pi(y_w) - log ref(y_w)) - (log pi(y_l) - log ref(y_l))``: 0 where policy and reference agree.
    """
    chosen, rejected = log_ratios(policy, reference)
    return chosen - rejected


def mean_margin(policy: PairLogps) -> Float[Tensor, " pairs"]:
    """Return how much likelier a token of the chosen is than one of the rejected, in nats."""
    return policy.mean_chosen - policy.mean_rejected
