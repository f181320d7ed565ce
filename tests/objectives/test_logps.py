"""The three names of log-probabilities, that masked equals sliced, and that shapes are held."""

import pytest
import torch

from align.objectives.logps import PairLogps, PairTokenLogps, SequenceLogps, TokenLogps

LOGP = torch.tensor([[-1.0, -2.0, -4.0], [-8.0, -16.0, float("nan")]], requires_grad=True)
MASK = torch.tensor([[True, True, True], [True, True, False]])
TOKENS = TokenLogps(logp=LOGP, mask=MASK)


def test_rows_are_a_slice():
    squares = torch.arange(6.0).view(3, 2)
    tokens = TokenLogps(logp=squares, mask=torch.ones(3, 2, dtype=torch.bool), log_sum_sq=-squares)
    assert tokens.rows(1, 3).logp.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert tokens.rows(1, 2).log_sum_sq.tolist() == [[-2.0, -3.0]]
    assert tokens.lengths.tolist() == [2, 2, 2]


def test_the_sum_is_over_completion_tokens_only():
    summed = TOKENS.summed()
    torch.testing.assert_close(summed.logps, torch.tensor([-7.0, -24.0]))
    torch.testing.assert_close(summed.mean_logps, torch.tensor([-7 / 3, -12.0]))
    (gradient,) = torch.autograd.grad(summed.logps.sum(), LOGP)
    assert torch.equal(gradient, MASK.float())


def test_pairs_carry_lengths_means_and_scores():
    pairs = PairTokenLogps(
        chosen=TOKENS.rows(0, 1),
        rejected=TOKENS.rows(1, 2),
        chosen_scores=torch.tensor([0.9]),
        rejected_scores=torch.tensor([0.4]),
    ).summed()
    assert (pairs.chosen_lengths.tolist(), pairs.rejected_lengths.tolist()) == ([3], [2])
    torch.testing.assert_close(pairs.mean_chosen, torch.tensor([-7 / 3]))
    torch.testing.assert_close(pairs.mean_rejected, torch.tensor([-12.0]))
    torch.testing.assert_close(pairs.score_gap, torch.tensor([0.5]))
    assert not pairs.detach().chosen.requires_grad
    assert pairs.chosen_side.mean_logps.tolist() == pairs.mean_chosen.tolist()


def test_swapping_twice_changes_nothing_and_scores_stay():
    pairs = PairTokenLogps(
        chosen=TOKENS.rows(0, 1),
        rejected=TOKENS.rows(1, 2),
        chosen_scores=torch.tensor([0.9]),
        rejected_scores=torch.tensor([0.4]),
        draws=(torch.zeros(1, 3), torch.ones(1, 3)),
    )
    once = pairs.swapped()
    assert once.chosen.lengths.tolist() == [2]
    assert once.draws[0].sum() == 3
    assert once.summed().score_gap.item() == pytest.approx(0.5)
    assert torch.equal(once.summed().chosen, pairs.summed().swapped().chosen)
    assert torch.equal(once.swapped().summed().chosen, pairs.summed().chosen)


def test_scores_that_are_missing_are_named():
    pairs = PairTokenLogps(chosen=TOKENS.rows(0, 1), rejected=TOKENS.rows(1, 2)).summed()
    with pytest.raises(ValueError, match="columns chosen_score and rejected_score"):
        _ = pairs.score_gap


def test_picking_rows():
    sequences = SequenceLogps(
        logps=torch.tensor([-1.0, -2.0]), lengths=torch.tensor([1, 4]), baseline=torch.tensor(0.5)
    )
    picked = sequences.pick(torch.tensor([False, True]))
    assert (picked.logps.tolist(), picked.lengths.tolist(), float(picked.baseline)) == ([-2.0], [4], 0.5)


def test_sides_of_different_sizes_are_refused_in_tests():
    """Shapes are types; the checker that pytest switches on sees four chosen and three rejected."""
    with pytest.raises(Exception, match="Type-check"):
        PairLogps(
            chosen=torch.zeros(4),
            rejected=torch.zeros(3),
            chosen_lengths=torch.ones(4, dtype=torch.long),
            rejected_lengths=torch.ones(3, dtype=torch.long),
        )
