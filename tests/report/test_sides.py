import pytest

from align.report.sides import COMPLETIONS, MIXED, PAIRS, is_unpaired, sides_of
from tests.report.conftest import metrics, one_sided_metrics, training, unpaired_metrics, unpaired_training


@pytest.mark.parametrize(
    ("rows", "unpaired"),
    [
        (metrics(), False),
        (one_sided_metrics(), False),
        (one_sided_metrics()[:-1], False),  # before its first evaluation
        ([], False),
        (unpaired_metrics(), True),
        ([row for row in unpaired_metrics() if "loss" in row], True),
        ([{"step": 1, "rewards/chosen": 0.1}, {"step": 2, "rewards/rejected": 0.1}], True),  # no reference point
        ([training(1)], False),
        ([unpaired_training(10)], True),
    ],
)
def test_a_log_says_what_was_trained_on(rows, unpaired):
    assert is_unpaired(rows) is unpaired


def test_words_for_several_runs():
    assert sides_of(metrics(), one_sided_metrics()) is PAIRS
    assert sides_of(unpaired_metrics(), unpaired_metrics()) is COMPLETIONS
    assert sides_of(metrics(), unpaired_metrics()) is MIXED
    assert sides_of() is PAIRS
    assert [COMPLETIONS[side] for side in ("chosen", "rejected")] == ["desirable", "undesirable"]
