"""Scores by hand."""

import torch

from align.objectives.logps import PairLogps
from align.objectives.scores import log_ratio_margin

ONE = torch.tensor([1])


def pair(chosen, rejected):
    return PairLogps(
        chosen=torch.tensor([chosen]), rejected=torch.tensor([rejected]), chosen_lengths=ONE, rejected_lengths=ONE
    )


def test_log_ratio_margin():
    """Chosen gained 2 nats over the reference, rejected lost 1: a margin of 3."""
    assert log_ratio_margin(pair(-8.0, -13.0), pair(-10.0, -12.0)).tolist() == [3.0]


def test_agreement_is_zero():
    assert log_ratio_margin(pair(-8.0, -13.0), pair(-8.0, -13.0)).tolist() == [0.0]
