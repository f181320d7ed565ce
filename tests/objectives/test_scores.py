"""Scores by hand."""

import torch

from align.objectives.logps import PairLogps
from align.objectives.scores import log_ratio_margin, log_ratios, mean_margin


def pair(chosen, rejected):
    return PairLogps(
        chosen=torch.tensor([chosen]),
        rejected=torch.tensor([rejected]),
        chosen_lengths=torch.tensor([2]),
        rejected_lengths=torch.tensor([4]),
    )


def test_log_ratios_and_their_margin():
    """Chosen gained 2 nats over the reference, rejected lost 1: a margin of 3."""
    policy, reference = pair(-8.0, -13.0), pair(-10.0, -12.0)
    assert [r.tolist() for r in log_ratios(policy, reference)] == [[2.0], [-1.0]]
    assert log_ratio_margin(policy, reference).tolist() == [3.0]


def test_agreement_is_zero():
    assert log_ratio_margin(pair(-8.0, -13.0), pair(-8.0, -13.0)).tolist() == [0.0]


def test_mean_margin_divides_each_side_by_its_length():
    assert mean_margin(pair(-8.0, -12.0)).tolist() == [-1.0]
