import pytest

from align.data.rows import DataError
from align.data.tokens import TokenPair, UnpairedTokens
from align.data.truncate import truncate


def pair(prompt: list[int], chosen: list[int], rejected: list[int]) -> TokenPair:
    return TokenPair(
        prompt_ids=prompt, chosen_ids=chosen, rejected_ids=rejected, weight=1.0, where="pairs.jsonl:9", prompt_hash="p"
    )


LONG = pair([1, 2, 3, 4], [5, 6, 7], [8, 9])


@pytest.mark.parametrize(
    ("policy", "limit", "expected"),
    [
        ("keep_start", 7, ([1, 2, 3, 4], [5, 6, 7], [8, 9])),
        ("keep_start", 6, ([1, 2, 3, 4], [5, 6], [8, 9])),
        ("keep_start", 5, ([1, 2, 3, 4], [5], [8])),
        ("keep_end", 6, ([2, 3, 4], [5, 6, 7], [8, 9])),
        ("keep_end", 4, ([4], [5, 6, 7], [8, 9])),
        ("keep_end", 3, ([4], [5, 6], [8, 9])),
        ("keep_end", 2, ([4], [5], [8])),
    ],
)
def test_policies_by_hand(policy, limit: int, expected: tuple[list[int], ...]):
    cut = truncate(LONG, limit, policy)
    assert (cut.prompt_ids, cut.chosen_ids, cut.rejected_ids) == expected


def test_what_fits_is_the_same_object():
    assert truncate(LONG, 7, "drop") is truncate(LONG, None, "drop") is LONG
    assert truncate(LONG, 6, "drop") is None


@pytest.mark.parametrize(("limit", "prompt"), [(6, [1, 3, 4]), (5, [1, 4]), (4, [4])])
def test_keep_end_keeps_bos_where_more_than_one_token_stays(limit: int, prompt: list[int]):
    assert truncate(LONG, limit, "keep_end", bos=1).prompt_ids == prompt


def test_nothing_left_of_the_completions():
    with pytest.raises(
        DataError, match=r"pairs\.jsonl:9: the prompt alone has 4 tokens.*set truncation to keep_end or drop"
    ):
        truncate(LONG, 4, "keep_start")


def test_nothing_left_that_differs():
    alike = pair([1, 2], [3, 4, 5], [3, 4, 6])
    with pytest.raises(DataError, match=r"the same within max_length 4; raise max_length, or set .* keep_end or drop"):
        truncate(alike, 4, "keep_start")
    assert truncate(alike, 4, "keep_end").prompt_ids == [2]
    with pytest.raises(DataError, match=r"the same within max_length 3; raise max_length, or set truncation to drop"):
        truncate(alike, 3, "keep_end")
    with pytest.raises(DataError, match="become the same tokens; remove the row"):
        truncate(pair([1], [2], [2]), None, "drop")


def single(completion: list[int]) -> UnpairedTokens:
    return UnpairedTokens(
        prompt_ids=[1, 2, 3, 4],
        completion_ids=completion,
        desirable=False,
        weight=1.0,
        where="rows.jsonl:9",
        prompt_hash="p",
    )


@pytest.mark.parametrize(
    ("policy", "limit", "expected"),
    [
        ("keep_start", 5, ([1, 2, 3, 4], [5])),
        ("keep_end", 5, ([1, 4], [5, 6, 7])),
        ("keep_end", 2, ([4], [5])),
        ("drop", 7, ([1, 2, 3, 4], [5, 6, 7])),
    ],
)
def test_single_completions_fit_by_the_same_policies(policy, limit: int, expected: tuple[list[int], ...]):
    cut = truncate(single([5, 6, 7]), limit, policy, bos=1)
    assert (cut.prompt_ids, cut.completion_ids, cut.desirable) == (*expected, False)
    assert truncate(single([5, 6, 7]), 6, "drop") is None
    with pytest.raises(DataError, match=r"rows\.jsonl:9: the prompt alone has 4 tokens"):
        truncate(single([5]), 4, "keep_start")
