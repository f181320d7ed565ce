"""Token weightings by hand: the tail of the longer side, and a random part of it."""

import pytest
import torch

from align.objectives.logps import PairTokenLogps, TokenLogps
from align.objectives.weighting import down_sampled, length_desensitised


def side(*rows):
    width = max(map(len, rows))
    logp = torch.tensor([[*row, *[torch.nan] * (width - len(row))] for row in rows])
    return TokenLogps(logp=logp, mask=~logp.isnan())


PAIRS = PairTokenLogps(chosen=side([-1.0, -2.0, -4.0], [-8.0]), rejected=side([-1.0, -1.0], [-2.0, -16.0]))


def test_tokens_beyond_the_shared_length_count_alpha():
    """Shared lengths are 2 and 1: -1 - 2 - 4/2, -8; -2, -2 - 16/2."""
    weighed = length_desensitised(PAIRS, 0.5)
    assert weighed.chosen.tolist() == [-5.0, -8.0]
    assert weighed.rejected.tolist() == [-2.0, -10.0]
    assert weighed.chosen_lengths.tolist() == [3, 1]


def test_the_longer_side_keeps_as_many_tokens_as_the_shorter_has():
    draws = torch.tensor([[0.9, 0.1, 0.2], [0.5, 0.0, 0.0]]), torch.tensor([[0.3, 0.4], [0.7, 0.6]])
    weighed = down_sampled(PairTokenLogps(chosen=PAIRS.chosen, rejected=PAIRS.rejected, draws=draws))
    assert weighed.chosen.tolist() == [-6.0, -8.0]
    assert weighed.rejected.tolist() == [-2.0, -16.0]


def test_each_token_is_kept_as_often_as_any_other():
    pairs, kept = PairTokenLogps(chosen=side([-1.0, -10.0, -100.0]), rejected=side([-1.0])), []
    generator = torch.Generator().manual_seed(0)
    for _ in range(600):
        draws = torch.rand(1, 3, generator=generator), torch.zeros(1, 1)
        kept.append(
            float(down_sampled(PairTokenLogps(chosen=pairs.chosen, rejected=pairs.rejected, draws=draws)).chosen)
        )
    for value in (-1.0, -10.0, -100.0):
        assert kept.count(value) == pytest.approx(200, abs=45)


def test_draws_are_needed():
    with pytest.raises(ValueError, match="a random number for each token"):
        down_sampled(PAIRS)
