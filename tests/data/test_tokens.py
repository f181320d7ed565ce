import math

import pytest

from align.data.tokens import PromptTokens, TokenPair, UnpairedTokens

SHARED = {"prompt_ids": [1, 2], "weight": 1.0, "where": "a:1", "prompt_hash": "p"}
PAIR = TokenPair(chosen_ids=[3], rejected_ids=[4, 5], **SHARED)
GOOD, BAD = (UnpairedTokens(completion_ids=[3, 4, 5], desirable=desirable, **SHARED) for desirable in (True, False))


@pytest.mark.parametrize(
    ("row", "completions", "length"),
    [
        (PAIR, {"chosen": [3], "rejected": [4, 5]}, 4),
        (GOOD, {"desirable": [3, 4, 5]}, 5),
        (BAD, {"undesirable": [3, 4, 5]}, 5),
    ],
)
def test_completions_by_what_they_are(row: PromptTokens, completions: dict[str, list[int]], length: int):
    assert row.completions == completions
    assert row.length == length
    assert not row.alike
    cut = row.cut_to([2], [ids[:1] for ids in completions.values()])
    assert cut.prompt_ids == [2]
    assert [len(ids) for ids in cut.completions.values()] == [1] * len(completions)
    assert (type(cut), cut.where, cut.prompt_hash) == (type(row), "a:1", "p")


def test_only_two_completions_can_be_alike():
    assert PAIR.cut_to([1], [[3], [3]]).alike


def test_scores_are_nan_where_nobody_said_and_stay_when_ids_are_cut():
    assert math.isnan(PAIR.chosen_score)
    scored = TokenPair(chosen_ids=[3], rejected_ids=[4], chosen_score=0.5, rejected_score=-1.0, **SHARED)
    cut = scored.cut_to([1], [[3], [4]])
    assert (cut.chosen_score, cut.rejected_score) == (0.5, -1.0)
