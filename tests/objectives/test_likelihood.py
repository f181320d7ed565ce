"""Fine-tuning and unlikelihood by hand; unlikelihood is no function of sequence log-probabilities."""

import math

import pytest
import torch

from align.objectives.incentives import incentives
from align.objectives.likelihood import SFT, Unlikelihood
from align.objectives.logps import PairTokenLogps, TokenLogps
from tests.objectives.laws import loss, pair


def test_sft_by_hand():
    policy = pair(-6.0, -1.0, 3, 1)
    assert [loss("sft", policy, nll=nll) for nll in ("sum", "mean")] == [6.0, 2.0]
    assert SFT().reads == ("chosen",)


def sides(chosen, rejected):
    def side(values):
        logp = torch.tensor([values], dtype=torch.float64)
        return TokenLogps(logp=logp, mask=torch.ones_like(logp, dtype=torch.bool))

    return PairTokenLogps(chosen=side(chosen), rejected=side(rejected))


HALF = math.log(0.5)


def test_unlikelihood_by_hand():
    """Chosen at 1/2, rejected tokens at 1/2 and 1/5: log 2 - 0.5 (log 1/2 + log 4/5)."""
    policy = sides([HALF], [HALF, math.log(0.2)])
    expected = math.log(2) - 0.5 * (math.log(0.5) + math.log(0.8))
    assert Unlikelihood(lam=0.5).of_tokens(policy).item() == pytest.approx(expected)


def test_likely_tokens_are_pushed_harder_and_the_sequence_does_not_tell():
    found = incentives(Unlikelihood(), sides([HALF], [HALF, math.log(0.2)]))
    assert found.rejected.tolist()[0] == pytest.approx([1.0, 0.25])
    assert found.factors().tolist() == [False]


def test_sequence_log_probabilities_are_refused():
    with pytest.raises(ValueError, match="no function of sequence log-probabilities; call of_tokens"):
        Unlikelihood()(pair(-1.0, -2.0))


def test_at_certainty_the_push_is_finite_and_downwards():
    found = incentives(Unlikelihood(), sides([HALF], [0.0]))
    assert torch.isfinite(found.rejected).all()
    assert found.d_l > 1e6
