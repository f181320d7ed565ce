"""What every objective inherits."""

from dataclasses import dataclass

import torch

from align.objectives.base import PairObjective
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
