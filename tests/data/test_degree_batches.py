from align.data.degree_batches import DegreeCollator

PAIRS = [
    {
        "prompt_ids": [1, 2],
        "chosen_ids": [3, 4, 5],
        "rejected_ids": [6],
        "chosen_versions": [[3, 5], []],
        "rejected_versions": [[], []],
    },
    {
        "prompt_ids": [7],
        "chosen_ids": [8],
        "rejected_ids": [9, 10],
        "chosen_versions": [[], []],
        "rejected_versions": [[9], [10]],
    },
]


def test_a_row_for_every_version_that_is_distinct():
    batch = DegreeCollator(0, ("chosen", "rejected"))(PAIRS)
    assert batch["input_ids"].shape == (4, 5)  # the pairs, as ever
    assert batch["degree_of"].tolist() == [0, 1, 0, 0, 0, 1, 2]
    assert batch["degree_pair"].tolist() == [0, 0, 1, 0, 1, 1, 1]
    assert batch["degree_chosen"].tolist() == [True] * 3 + [False] * 4
    assert batch["degree_input_ids"][1].tolist() == [1, 2, 3, 5, 0]
    assert batch["degree_attention_mask"][1].tolist() == [1, 1, 1, 1, 0]
    assert batch["degree_completion_mask"][1].tolist() == [False, False, True, True, False]


def test_one_side():
    batch = DegreeCollator(0, ("rejected",))(PAIRS)
    assert batch["degree_of"].tolist() == [0, 0, 1, 2]
