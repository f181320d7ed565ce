"""Three ways to count the tokens of a likelihood, by hand."""

import pytest
import torch

from align.objectives.anchors import check_nll, negative_log_likelihood
from align.objectives.logps import SequenceLogps

ROWS = SequenceLogps(logps=torch.tensor([-6.0, -4.0]), lengths=torch.tensor([2, 4]))


@pytest.mark.parametrize(("nll", "expected"), [("sum", [6.0, 4.0]), ("mean", [3.0, 1.0]), ("batch_mean", [2.0, 4 / 3])])
def test_by_hand(nll, expected):
    torch.testing.assert_close(negative_log_likelihood(ROWS, nll), torch.tensor(expected))


def test_the_batch_mean_is_a_mean_over_tokens():
    assert negative_log_likelihood(ROWS, "batch_mean").mean().item() == pytest.approx(10 / 6)


def test_unknown_ways_are_refused():
    with pytest.raises(ValueError, match="nll must be one of sum, mean, batch_mean"):
        check_nll("average")
