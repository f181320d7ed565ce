"""What every objective inherits."""

from dataclasses import dataclass

import pytest
import torch

from align.objectives.base import PairObjective, SidedObjective
from align.objectives.logps import PairLogps, PairTokenLogps, TokenLogps

LENGTHS = torch.tensor([2, 4])
POLICY = PairLogps(
    chosen=torch.tensor([-4.0, -8.0]),
    rejected=torch.tensor([-6.0, -2.0]),
    chosen_lengths=LENGTHS,
    rejected_lengths=LENGTHS,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap(PairObjective):
    needs_reference = False

    def score(self, policy, reference):
        return policy.chosen - policy.rejected

    def link(self, score):
        return score.square()


def test_calling_composes_score_and_link():
    assert Gap()(POLICY, None).tolist() == [4.0, 36.0]


def test_rewards_without_a_scale_are_log_ratios_or_logps():
    chosen, rejected = Gap().rewards(POLICY, None)
    assert (chosen.tolist(), rejected.tolist()) == ([-4.0, -8.0], [-6.0, -2.0])
    chosen, rejected = Gap().rewards(POLICY, POLICY)
    assert chosen.tolist() == rejected.tolist() == [0.0, 0.0]


def test_tokens_count_alike_by_default():
    side = TokenLogps(logp=torch.tensor([[-1.0, -2.0]]), mask=torch.tensor([[True, True]]))
    pairs = Gap().weigh(PairTokenLogps(chosen=side, rejected=side))
    assert pairs.chosen.tolist() == [-3.0]


@dataclass(frozen=True, slots=True, kw_only=True)
class Anchored(Gap):
    def regulariser(self, policy, reference):
        return -policy.mean_chosen


def test_a_regulariser_is_added():
    assert Anchored()(POLICY).tolist() == [4.0 + 2.0, 36.0 + 2.0]


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlyRejected(SidedObjective):
    needs_lengths = True
    reads = ("rejected",)

    def rejected_link(self, score):
        return score.exp()


def test_a_side_that_is_not_read_loses_nothing():
    objective = OnlyRejected()
    assert objective.needs == ("reference", "lengths")
    assert objective(POLICY, POLICY).tolist() == [1.0, 1.0]
    side, desirable = POLICY.rejected_side, torch.tensor([True, False])
    assert objective.of_rows(side, side, desirable).tolist() == [0.0, 1.0]


def test_a_reference_that_is_needed_and_missing_is_named():
    with pytest.raises(ValueError, match="OnlyRejected compares with a reference"):
        OnlyRejected()(POLICY)


@dataclass(frozen=True, slots=True, kw_only=True)
class Means(Gap):
    @property
    def mean_rewards(self):
        return True


def test_rewards_a_token():
    chosen, rejected = Means().rewards(POLICY, None)
    assert (chosen.tolist(), rejected.tolist()) == ([-2.0, -2.0], [-3.0, -0.5])
