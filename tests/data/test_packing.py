"""Layouts of batches: which rows share, which are packed, and of which sides there is one."""

import pytest

from align.data.collate import PairCollator, UnpairedCollator
from align.data.packing import Packing, prefix_of, shared_tokens
from align.models.layout import Layout

PAIRS = [
    {"prompt_ids": [1, 2, 3], "chosen_ids": [4, 5, 9], "rejected_ids": [4, 6, 9]},
    {"prompt_ids": [1, 2], "chosen_ids": [7, 9], "rejected_ids": [8, 9]},
]
BOTH = ("chosen", "rejected")


def layout_of(packing, sides=BOTH):
    return Layout.of(PairCollator(9, packing=packing)(PAIRS), prefix_of(sides))


@pytest.mark.parametrize(
    ("options", "shape", "tokens"),
    [
        ({}, (1, 14), 14),
        ({"sharing": False}, (1, 20), 20),
        ({"packing": False}, (2, 8), 14),
        ({"sharing": False, "packing": False}, (4, 6), 20),
        ({"budget": 9}, (2, 8), 14),
        ({"multiple": 16}, (1, 16), 14),
    ],
)
def test_shapes(options, shape, tokens):
    layout = layout_of(Packing(**options))
    assert tuple(layout.input_ids.shape) == shape
    assert int(layout.real.sum()) == tokens
    assert layout.scored.sum(1).tolist() == [3, 2, 3, 2]  # chosen sides first


def test_a_layout_for_each_set_of_sides():
    batch = PairCollator(9, packing=Packing(sides=(BOTH, ("rejected",))))(PAIRS)
    assert Layout.of(batch, prefix_of(("rejected",))).scored.shape[0] == 2
    assert Layout.of(batch, prefix_of(BOTH)).scored.shape[0] == 4
    assert Layout.of(batch, prefix_of(("chosen",))) is None


def test_prompts_are_scored_before_the_chosen():
    assert layout_of(Packing(score_prompts=True)).scored.sum(1).tolist() == [5, 3, 3, 2]


def test_single_completions_share_nothing():
    row = {"prompt_ids": [1, 2], "completion_ids": [3, 9], "desirable": True}
    batch = UnpairedCollator(9, mismatched=True, max_length=None, packing=Packing())(
        [row, {**row, "prompt_ids": [1, 4], "completion_ids": [5, 9]}]
    )
    for sides in ((), ("mismatched",)):
        assert tuple(Layout.of(batch, prefix_of(sides)).input_ids.shape) == (1, 8)


def test_what_sharing_saves():
    assert shared_tokens([1, 2, 3], [[4, 5], [4, 6], [7]]) == 3 + 3 + 1
