"""Order of rows: fillers, partners, seeds; the same rows a step, however it is cut."""

import datasets
import pytest
from torch.utils.data import RandomSampler

from align.data.order import FILLER, MISMATCHED, Draw, DrawnRows, Order, nearest_other


def test_a_single_process_draws_as_the_sampler_does():
    assert [draw.index for draw in Order([3, 1, 2], step=2)] == [3, 1, 2]
    assert len(Order([3, 1, 2], step=2)) == 3


@pytest.mark.parametrize(("rows", "fillers"), [(8, 0), (7, 1), (5, 3), (3, 1), (1, 3)])
def test_the_last_group_is_filled_up(rows, fillers):
    order = Order(list(range(rows)), step=8, fill_to=4)
    drawn = list(order)
    assert len(drawn) == len(order) == rows + fillers
    assert [draw.index for draw in drawn if not draw.filler] == list(range(rows))
    assert all(draw.filler and draw.index == rows - 1 for draw in drawn[rows:])


def test_partners_are_of_the_same_step_and_of_another_prompt():
    prompts = ["a", "a", "b", "b", "c", "d", "e", "f"]
    drawn = list(Order([0, 2, 4, 5, 1, 3, 6, 7], step=4, prompts=prompts))
    assert [draw.partner for draw in drawn] == [5, 0, 2, 4, 7, 1, 3, 6]
    pairs = list(Order([0, 1, 2, 3], step=4, prompts=prompts))
    assert [draw.partner for draw in pairs] == [2, 3, 0, 1]


def test_partners_of_a_step_that_is_filled_up_are_real_rows():
    drawn = list(Order([4, 5, 6], step=8, fill_to=8, prompts="abcdefg"))
    assert drawn[:3] == [Draw(4, 6), Draw(5, 4), Draw(6, 5)]
    assert set(drawn[3:]) == {Draw(6, 5, True)}
    assert next(iter(Order([2], step=4, prompts="abc"))).partner is None


def test_how_a_step_is_cut_does_not_change_what_it_sees():
    def steps(order):
        drawn = list(order)
        return [[d for d in drawn[i : i + 8] if not d.filler] for i in range(0, len(drawn), 8)]

    rows, prompts = list(range(21)), [str(i) for i in range(21)]
    whole = steps(Order(rows, step=8, prompts=prompts))
    assert whole == steps(Order(rows, step=8, fill_to=4, prompts=prompts))
    assert whole == steps(Order(rows, step=8, fill_to=8, prompts=prompts))


def test_epochs_differ_and_come_again():
    def epoch(number):
        order = Order(RandomSampler(range(50)), step=8, seed=3)
        order.set_epoch(number)
        return [draw.index for draw in order]

    assert epoch(0) == epoch(0) != epoch(1)
    assert sorted(epoch(1)) == list(range(50))


def test_rows_as_they_are_drawn():
    rows = datasets.Dataset.from_list([{"completion_ids": [i], "weight": 2.0} for i in range(3)])
    drawn = DrawnRows(rows)
    assert len(drawn) == 3
    first, second = drawn.__getitems__([Draw(1, partner=2), Draw(0)])
    assert (first["completion_ids"], first[MISMATCHED], first[FILLER], first["weight"]) == ([1], [2], False, 2.0)
    assert second[MISMATCHED] is None
    filler = drawn[Draw(2, partner=1, filler=True)]
    assert (filler["completion_ids"], filler[MISMATCHED], filler["weight"]) == ([2], [1], 0.0)
    pairs = DrawnRows(datasets.Dataset.from_list([{"chosen_ids": [1]}]))
    assert MISMATCHED not in pairs[Draw(0)]


def test_where_every_row_has_one_prompt_it_is_the_row_before():
    assert nearest_other(["a", "a", "a"]) == 1
    assert nearest_other(["a", "b"]) == 1
