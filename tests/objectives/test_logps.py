"""The three names of log-probabilities, and that their shapes are held."""

import pytest
import torch

from align.objectives.logps import PairLogps, TokenLogps


def test_rows_are_a_slice():
    tokens = TokenLogps(logp=torch.arange(6.0).view(3, 2), mask=torch.ones(3, 2, dtype=torch.bool))
    assert tokens.rows(1, 3).logp.tolist() == [[2.0, 3.0], [4.0, 5.0]]
    assert tokens.lengths.tolist() == [2, 2, 2]


def test_sides_of_different_sizes_are_refused_in_tests():
    """Shapes are types; the checker that pytest switches on sees four chosen and three rejected."""
    with pytest.raises(Exception, match="Type-check"):
        PairLogps(
            chosen=torch.zeros(4),
            rejected=torch.zeros(3),
            chosen_lengths=torch.ones(4, dtype=torch.long),
            rejected_lengths=torch.ones(3, dtype=torch.long),
        )
