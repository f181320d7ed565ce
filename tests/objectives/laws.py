"""What tests of single objectives share: pairs from plain numbers, and strategies for hypothesis."""

import torch
from hypothesis import strategies as st

from align.objectives.logps import PairLogps
from align.objectives.registry import OBJECTIVES

nats = st.floats(-60, -0.1)
lengths = st.integers(1, 30)


def pair(chosen, rejected, n_w=1, n_l=1, **more):
    """Return one pair in float64."""
    return PairLogps(
        chosen=torch.tensor([chosen], dtype=torch.float64),
        rejected=torch.tensor([rejected], dtype=torch.float64),
        chosen_lengths=torch.tensor([n_w]),
        rejected_lengths=torch.tensor([n_l]),
        **{name: torch.tensor([value], dtype=torch.float64) for name, value in more.items()},
    )


def loss(name, policy, reference=None, **settings):
    """Return the loss of one pair as a number."""
    return float(OBJECTIVES.build(name, **settings)(policy, reference))
