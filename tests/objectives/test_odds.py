"""ORPO by hand, at certainty, and with prompt tokens."""

import math
from dataclasses import replace

import pytest
import torch

from align.objectives.incentives import incentives
from align.objectives.logps import PairTokenLogps, TokenLogps
from align.objectives.odds import ORPO
from tests.objectives.batches import pairs
from tests.objectives.laws import loss, pair


def test_by_hand():
    """Mean probabilities 1/2 and 1/5: odds 1 and 1/4, so the log of their ratio is log 4."""
    policy = pair(2 * math.log(0.5), 3 * math.log(0.2), 2, 3)
    assert loss("orpo", policy, lam=0.5) == pytest.approx(math.log(2) + 0.5 * math.log(1 + 1 / 4))


def certain(chosen, rejected):
    def side(value):
        return TokenLogps(logp=torch.full((1, 3), value), mask=torch.ones(1, 3, dtype=torch.bool))

    return PairTokenLogps(chosen=side(chosen), rejected=side(rejected))


def test_at_certainty_the_pull_is_finite_and_points_the_right_way():
    """The rejected at p = 1 must be pushed down, and harder than just below it."""
    at, below = (incentives(ORPO(lam=1.0), certain(-1.0, p)).d_l for p in (0.0, -1e-3))
    assert torch.isfinite(at).all()
    assert at > below > 0
    up = incentives(ORPO(lam=1.0), certain(0.0, -1.0)).d_w
    assert torch.isfinite(up).all()
    assert up > 0


def test_prompt_tokens_count_in_trls_likelihood():
    policy, _ = pairs(0)
    with_prompt = ORPO(lam=0.0, nll="batch_mean_with_prompt").of_tokens(policy)
    total = policy.chosen.summed().logps + policy.prompt.summed().logps
    tokens = policy.chosen.lengths + policy.prompt.lengths
    assert float(with_prompt.mean()) == pytest.approx(-float(total.sum()) / float(tokens.sum()))
    at_sequences = ORPO(lam=0.0, nll="batch_mean_with_prompt")(policy.summed())
    torch.testing.assert_close(at_sequences, with_prompt)
    assert ORPO(nll="batch_mean_with_prompt").needs == ("lengths", "prompt")
    with pytest.raises(ValueError, match=r"needs the prompts' log-probabilities"):
        ORPO(nll="batch_mean_with_prompt").of_tokens(replace(policy, prompt=None))
