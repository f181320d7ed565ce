import pytest
import torch

from align.data.collate import PairCollator
from align.data.rows import Row
from align.data.tokenize import PairTokenizer

PAIRS = [
    {"prompt_ids": [1, 2], "chosen_ids": [3, 0], "rejected_ids": [4, 5, 0], "weight": 2.0, "where": "a:1"},
    {"prompt_ids": [6], "chosen_ids": [7, 8, 9, 0], "rejected_ids": [0]},
]


def test_a_batch_by_hand():
    batch = PairCollator(pad_token_id=0)(PAIRS)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0, 0], [6, 7, 8, 9, 0], [1, 2, 4, 5, 0], [6, 0, 0, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 1], [1, 1, 0, 0, 0]]
    assert batch["completion_mask"].int().tolist() == [
        [0, 0, 1, 1, 0],
        [0, 1, 1, 1, 1],
        [0, 0, 1, 1, 1],
        [0, 1, 0, 0, 0],
    ]
    assert batch["completion_mask"].dtype == torch.bool
    assert batch["input_ids"].dtype == batch["attention_mask"].dtype == torch.int64
    assert torch.equal(batch["weight"], torch.tensor([2.0, 1.0]))


@pytest.mark.parametrize(("multiple", "width"), [(None, 5), (1, 5), (5, 5), (8, 8)])
def test_width(multiple: int | None, width: int):
    assert PairCollator(pad_token_id=0, pad_to_multiple_of=multiple)(PAIRS)["input_ids"].shape == (4, width)


def test_a_multiple_must_be_one():
    with pytest.raises(ValueError, match="at least 1"):
        PairCollator(pad_token_id=0, pad_to_multiple_of=0)


def test_the_closing_token_stays_where_it_is_the_pad_token_too(plain):
    rows = [Row(prompt="Sky?", chosen=" Blue, it is.", rejected=" No.", where="a:1")]
    pairs = PairTokenizer(plain)(rows)
    assert plain.pad_token_id == plain.eos_token_id
    features = [{"prompt_ids": p.prompt_ids, "chosen_ids": p.chosen_ids, "rejected_ids": p.rejected_ids} for p in pairs]
    batch = PairCollator(plain.pad_token_id)(features)
    for row, ids in enumerate((pairs[0].chosen_ids, pairs[0].rejected_ids)):
        assert batch["input_ids"][row][batch["completion_mask"][row]].tolist() == ids
        assert ids[-1] == plain.eos_token_id
