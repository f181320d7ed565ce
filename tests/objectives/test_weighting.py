"""Summing token log-probabilities: masked equals sliced."""

import torch

from align.objectives.logps import PairTokenLogps, TokenLogps
from align.objectives.weighting import summed, summed_pairs

LOGP = torch.tensor([[-1.0, -2.0, -4.0], [-8.0, -16.0, float("nan")]], requires_grad=True)
MASK = torch.tensor([[True, True, True], [True, True, False]])


def test_sum_over_completion_tokens_only():
    torch.testing.assert_close(summed(TokenLogps(logp=LOGP, mask=MASK)), torch.tensor([-7.0, -24.0]))


def test_gradient_is_one_on_completion_tokens_and_zero_elsewhere():
    (gradient,) = torch.autograd.grad(summed(TokenLogps(logp=LOGP, mask=MASK)).sum(), LOGP)
    assert torch.equal(gradient, MASK.float())


def test_pairs_carry_lengths_and_means():
    tokens = TokenLogps(logp=LOGP, mask=MASK)
    pairs = summed_pairs(PairTokenLogps(chosen=tokens.rows(0, 1), rejected=tokens.rows(1, 2)))
    assert pairs.chosen_lengths.tolist() == [3]
    assert pairs.rejected_lengths.tolist() == [2]
    torch.testing.assert_close(pairs.mean_chosen, torch.tensor([-7 / 3]))
    torch.testing.assert_close(pairs.mean_rejected, torch.tensor([-12.0]))
    assert not pairs.detach().chosen.requires_grad
