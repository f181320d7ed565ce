"""What is logged of pairs, by hand."""

import math

import pytest
import torch

from align.objectives.logps import PairLogps, PairTokenLogps, TokenLogps
from align.trainers.pair_metrics import both_sides, pair_metrics, sequence_logps

LOGPS = PairLogps(
    chosen=torch.tensor([-4.0, -6.0, math.nan]),
    rejected=torch.tensor([-8.0, -3.0, -1.0]),
    chosen_lengths=torch.tensor([2, 3, 1]),
    rejected_lengths=torch.tensor([4, 1, 1]),
)


def test_means_margins_and_ties():
    chosen, rejected = torch.tensor([1.0, 2.0, math.nan]), torch.tensor([0.5, 2.0, 1.0])
    found = pair_metrics(LOGPS, chosen, rejected)
    assert found["mean_logps/chosen"].tolist()[:2] == [-2.0, -2.0]
    assert found["mean_logps/rejected"].tolist() == [-2.0, -3.0, -1.0]
    assert found["rewards/margins"].tolist()[:2] == [0.5, 0.0]
    assert found["rewards/accuracies"].tolist()[:2] == [1.0, 0.5]
    assert found["rewards/accuracies"].isnan().tolist() == [False, False, True]
    assert found["length/chosen"].tolist() == [2.0, 3.0, 1.0]


def test_sides_as_tensors():
    assert both_sides(LOGPS).shape == (2, 3)
    tokens = TokenLogps(logp=torch.tensor([[-1.0, -2.0]]), mask=torch.tensor([[True, True]]))
    plain = sequence_logps(PairTokenLogps(chosen=tokens, rejected=tokens))
    assert [float(side.logps) for side in plain] == pytest.approx([-3.0, -3.0])
    assert [int(side.lengths) for side in plain] == [2, 2]
    assert len(sequence_logps(PairTokenLogps(chosen=tokens, rejected=tokens, prompt=tokens))) == 3
