import pytest
import torch

from align.data.collate import PairCollator, UnpairedCollator
from align.data.prepare import prepare_unpaired
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


def test_scores_are_nan_where_nobody_said():
    batch = PairCollator(pad_token_id=0)([{**PAIRS[0], "chosen_score": 0.5, "rejected_score": None}, PAIRS[1]])
    torch.testing.assert_close(batch["chosen_score"], torch.tensor([0.5, torch.nan]), equal_nan=True)
    torch.testing.assert_close(batch["rejected_score"], torch.tensor([torch.nan, torch.nan]), equal_nan=True)


ROWS = [
    {"prompt_ids": [1, 2], "completion_ids": [3, 0], "desirable": True, "weight": 2.0, "where": "a:1"},
    {"prompt_ids": [6], "completion_ids": [7, 8, 9, 0], "desirable": False},
    {"prompt_ids": [4, 5, 6], "completion_ids": [0], "desirable": True},
]


def test_single_completions_by_hand():
    batch = UnpairedCollator(pad_token_id=0, mismatched=False, max_length=None)(ROWS)
    assert batch["input_ids"].tolist() == [[1, 2, 3, 0, 0], [6, 7, 8, 9, 0], [4, 5, 6, 0, 0]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 1, 0], [1, 1, 1, 1, 1], [1, 1, 1, 1, 0]]
    assert batch["completion_mask"].int().tolist() == [[0, 0, 1, 1, 0], [0, 1, 1, 1, 1], [0, 0, 0, 1, 0]]
    assert batch["desirable"].tolist() == [True, False, True]
    assert torch.equal(batch["weight"], torch.tensor([2.0, 1.0, 1.0]))
    assert not any(key.startswith("mismatched") for key in batch)


@pytest.mark.parametrize(("limit", "second"), [(None, [6, 3, 0]), (5, [6, 3, 0]), (2, [6, 3])])
def test_mismatched_rows_have_the_completion_of_the_row_before(limit: int | None, second: list[int]):
    batch = UnpairedCollator(pad_token_id=99, mismatched=True, max_length=limit)(ROWS)
    ids, mask = batch["mismatched_input_ids"], batch["mismatched_attention_mask"].bool()
    rows = [row[real].tolist() for row, real in zip(ids, mask, strict=True)]
    assert rows[1] == second
    whole = [[1, 2, 0], [6, 3, 0], [4, 5, 6, 7, 8, 9, 0]]
    prompts = [2, 1, 3]
    if limit is not None:
        whole = [row[: max(limit, prompt + 1)] for row, prompt in zip(whole, prompts, strict=True)]
    assert rows == whole
    completions = batch["mismatched_completion_mask"].sum(1).tolist()
    assert completions == [len(row) - prompt for row, prompt in zip(whole, prompts, strict=True)]


def test_nobody_gets_a_completion_of_its_own_prompt_where_that_can_be_helped():
    pairs = [
        {"prompt_ids": [p], "completion_ids": [c], "desirable": c % 2 == 0} for p, c in ((1, 2), (1, 3), (4, 6), (4, 7))
    ]
    batch = UnpairedCollator(pad_token_id=0, mismatched=True, max_length=None)(pairs)
    assert batch["mismatched_input_ids"].tolist() == [[1, 6], [1, 7], [4, 2], [4, 3]]
    two = UnpairedCollator(pad_token_id=0, mismatched=True, max_length=None)(pairs[:2])
    assert two["mismatched_input_ids"].tolist() == [[1, 3], [1, 2]]


def test_a_batch_of_one_row_has_no_other_completion():
    with pytest.raises(ValueError, match=r"set trainer\.per_device_train_batch_size .* to 2 or more"):
        UnpairedCollator(pad_token_id=0, mismatched=True, max_length=None)(ROWS[:1])
    assert UnpairedCollator(pad_token_id=0, mismatched=False, max_length=None)(ROWS[:1])["weight"].tolist() == [2.0]
    collator = UnpairedCollator(pad_token_id=0, mismatched=True, max_length=None, stand_ins=ROWS[:2])
    assert collator(ROWS[:1])["mismatched_input_ids"].tolist() == [[1, 2, 7, 8, 9, 0]]
    assert collator(ROWS[1:2])["mismatched_input_ids"].tolist() == [[6, 3, 0]]


def test_rows_that_were_drawn_bring_their_partner_along():
    drawn = [{**row, "filler": i == 2, "mismatched_ids": [40 + i]} for i, row in enumerate(ROWS)]
    batch = UnpairedCollator(pad_token_id=0, mismatched=True, max_length=None)(drawn)
    assert batch["mismatched_input_ids"].tolist() == [[1, 2, 40, 0], [6, 41, 0, 0], [4, 5, 6, 42]]
    assert batch["real"].tolist() == [True, True, False]


def test_prepared_completions_make_a_batch(chatml):
    raw = [{"prompt": "Sky?", "completion": c, "label": c == " Blue."} for c in (" Blue.", " Red.")]
    rows = list(prepare_unpaired(raw, chatml).dataset)
    batch = UnpairedCollator(chatml.pad_token_id, mismatched=True, max_length=9)(rows)
    assert batch["desirable"].tolist() == [True, False]
    for row, ids in enumerate(batch["input_ids"]):
        assert ids[batch["completion_mask"][row]].tolist() == rows[row]["completion_ids"]
        assert rows[row]["completion_ids"][-1] == chatml.pad_token_id
