"""What is logged of each pair."""

import torch
from torch import Tensor

from align.objectives.logps import PairLogps, PairTokenLogps, SequenceLogps


def pair_metrics(policy: PairLogps, chosen_rewards: Tensor, rejected_rewards: Tensor) -> dict[str, Tensor]:
    """Return what is logged of each pair; log-probabilities in nats, lengths in tokens; NaN where not computed."""
    margins = chosen_rewards - rejected_rewards
    right = (margins > 0).double() + 0.5 * (margins == 0).double()
    return {
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
        "mean_logps/chosen": policy.mean_chosen,
        "mean_logps/rejected": policy.mean_rejected,
        "rewards/chosen": chosen_rewards,
        "rewards/rejected": rejected_rewards,
        "rewards/margins": margins,
        "rewards/accuracies": torch.where(margins.isnan(), margins.double(), right),
        "length/chosen": policy.chosen_lengths.double(),
        "length/rejected": policy.rejected_lengths.double(),
    }


def sequence_logps(logps: PairTokenLogps) -> list[SequenceLogps]:
    """Return the log-probabilities of sequences; NaN for sides that were not computed."""
    sides = [logps.chosen.summed(), logps.rejected.summed()]
    return sides if logps.prompt is None else [*sides, logps.prompt.summed()]


def both_sides(logps: PairLogps) -> Tensor:
    """Return chosen and rejected log-probabilities as two rows."""
    return torch.stack([logps.chosen, logps.rejected])
