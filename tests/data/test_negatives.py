import pytest

from align.data.negatives import NegativeCollator, negatives_of, one_a_sample, with_samples
from align.data.prepare import prepare_unpaired
from tests.conftest import pair_rows

ROWS = [
    {"prompt_ids": [1, 2], "completion_ids": [3], "samples": [[4, 5], [6]], "weight": 2.0},
    {"prompt_ids": [7], "completion_ids": [8, 9, 10], "samples": [[11], [12, 13, 14, 15]]},
]
FILLER_ROW = {"prompt_ids": [1], "completion_ids": [2], "samples": [[3], [4]], "weight": 0.0}


def test_samples_come_first_pair_by_pair():
    batch = NegativeCollator(0, None)(ROWS)
    assert batch["input_ids"].tolist() == [
        [1, 2, 4, 5, 0],
        [1, 2, 6, 0, 0],
        [7, 11, 0, 0, 0],
        [7, 12, 13, 14, 15],
        [1, 2, 3, 0, 0],
        [7, 8, 9, 10, 0],
    ]
    assert batch["completion_mask"].sum(1).tolist() == [2, 1, 1, 4, 1, 3]
    assert batch["weight"].tolist() == [2.0, 1.0]
    assert NegativeCollator(0, None)([FILLER_ROW])["weight"].tolist() == [0.0]


def test_samples_are_cut_to_length_and_may_be_left_out():
    batch = NegativeCollator(0, 3)(ROWS)
    assert batch["completion_mask"].sum(1).tolist()[:4] == [1, 1, 1, 2]
    alone = NegativeCollator(0, None)([{**row, "samples": None} for row in ROWS])
    assert len(alone["input_ids"]) == 2


def test_negatives_have_as_many_samples_as_one_another():
    with pytest.raises(ValueError, match=r"rows of a batch have \[1, 2\] samples"):
        NegativeCollator(0, None)([ROWS[0], {**ROWS[1], "samples": [[11]]}])


def test_negatives_of_pairs_and_of_labels(tokenizer):
    pairs = prepare_unpaired(pair_rows(3), tokenizer).dataset
    found = negatives_of(pairs, "train_dataset")
    assert [where.endswith("(rejected)") for where in found["where"]] == [True] * 3
    good = [{"prompt": "the day", "completion": " good", "label": True}]
    with pytest.raises(ValueError, match="all 1 completions are desirable, and d2o trains on the others"):
        negatives_of(prepare_unpaired(good, tokenizer).dataset, "train_dataset")


def test_a_row_a_sample(tokenizer):
    rows = negatives_of(prepare_unpaired(pair_rows(2), tokenizer).dataset, "train_dataset")
    apart = one_a_sample(with_samples(rows, [[[1], [2, 3]], [[4], [5]]]))
    assert apart["samples"][:] == [[[1]], [[2, 3]], [[4]], [[5]]]
    assert apart["completion_ids"][0] == apart["completion_ids"][1] == rows["completion_ids"][0]
