"""Objectives with beta: it is checked, and it is what rewards are scaled by."""

from dataclasses import dataclass

import pytest
import torch

from align.objectives.scaled import ScaledPairObjective
from tests.objectives.batches import pairs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plain(ScaledPairObjective):
    least: float = 0.0

    def check(self):
        if self.least > self.beta:
            raise ValueError("least must not exceed beta")

    def score(self, policy, reference):
        return policy.chosen - policy.rejected

    def link(self, score):
        return -self.beta * score


def test_beta_and_the_other_settings_are_checked():
    with pytest.raises(ValueError, match="beta must be greater than 0"):
        Plain(beta=0.0)
    with pytest.raises(ValueError, match="least must not exceed beta"):
        Plain(beta=0.1, least=0.2)


def test_rewards_are_beta_times_log_ratios():
    policy, reference = (batch.summed() for batch in pairs(0))
    chosen, rejected = Plain(beta=0.25).rewards(policy, reference)
    torch.testing.assert_close(chosen, 0.25 * (policy.chosen - reference.chosen))
    torch.testing.assert_close(rejected, 0.25 * (policy.rejected - reference.rejected))
