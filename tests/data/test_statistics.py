"""Lengths, batches and repeats, beside plain loops and numbers worked out by hand."""

import numpy as np
import pytest

from align.data import statistics
from align.data.row_columns import read_columns
from align.data.statistics import (
    Drawing,
    Spread,
    batches_of,
    leak_between,
    lengths_of,
    mismatched_batches_of,
    places_of,
    repeats_in,
)
from tests.data.test_row_columns import completions, made


def sized(*sizes):
    """Columns of pairs with so many prompt, chosen and rejected tokens."""
    return read_columns(made(*(([7] * p, [8] * c, [9] * r) for p, c, r in sizes)))


def test_where_numbers_lie():
    found = Spread.of(np.array([1, 2, 3, 4, 10]))
    assert (found.min, found.mean, found.median, found.max) == (1, 4.0, 3.0, 10)
    assert found.p95 == pytest.approx(8.8)  # 80 % of the way from 4 to 10


def test_rows_are_the_same_only_token_for_token():
    pairs = [
        ([1, 2], [3], [4]),
        ([1, 2], [3], [4]),
        ([2, 1], [3], [4]),  # another order
        ([1], [2, 3], [4]),  # another boundary
        ([1, 2], [4], [3]),  # sides swapped
        ([1, 2], [3], [4, 0]),
    ]
    columns = read_columns(made(*pairs))
    assert len(set(columns.rows.tolist())) == 5
    found = repeats_in(columns, places_of(made(*pairs)))
    assert (found.rows, found.contradicted) == (1, 3)
    assert found.places == ["row 0", "row 1", "row 4"]
    assert found.prompts == 4  # by digest: five prompts sum to 3, one to 1


def test_a_held_out_prompt_that_is_trained_on_is_found():
    train = made(([1], [2], [3]), ([4], [5], [6]))
    held_out = made(([9], [2], [3]), ([4], [5], [6]), ([4], [7], [8]))
    leak = leak_between(read_columns(train), read_columns(held_out), places_of(held_out))
    assert (leak.prompts, leak.rows, leak.places) == (2, 1, ["row 1", "row 2"])
    assert leak.share == pytest.approx(2 / 3)


def test_lengths_by_hand():
    lengths = lengths_of(sized((2, 3, 1), (4, 1, 1), (6, 2, 5)))
    assert lengths.rows == 3
    assert (lengths.prompt.min, lengths.prompt.max, lengths.prompt.mean) == (2, 6, 4.0)
    assert (lengths.whole.min, lengths.whole.max) == (5, 11)
    assert lengths.chosen_longer == pytest.approx(1 / 3)
    assert lengths.same_length == pytest.approx(1 / 3)


def test_batches_by_hand():
    columns = sized((2, 3, 1), (4, 1, 1), (6, 2, 5))
    found = batches_of(columns, Drawing(size=2, order="sequential"))
    # The first batch pads 4 rows of 5, 5, 3 and 5 tokens to 5, the second two rows of 8 and 11 to 11.
    assert (found.drawn, found.max_width, found.max_completion_tokens) == (2, 11, 7)
    assert found.mean_width == pytest.approx((5 + 5 + 11) / 3)
    assert found.mean_completion_tokens == 6.5
    assert found.real_tokens == (18 + 19) / 2
    assert found.padding == pytest.approx(1 - 37 / (20 + 22))


def test_grouping_by_length_pads_less_than_chance():
    generator = np.random.default_rng(0)
    columns = sized(*generator.integers(1, 60, (400, 3)).tolist())
    random, grouped = (batches_of(columns, Drawing(size=4, order=order)) for order in ("random", "group_by_length"))
    assert grouped.padding < 0.7 * random.padding
    assert grouped.drawn == random.drawn == 100
    assert grouped.max_width == random.max_width == columns.longest.max()


def test_a_short_run_is_told_from_the_batches_it_has():
    columns = sized(*((size, 1, 1) for size in range(1, 21)))
    assert batches_of(columns, Drawing(size=2, order="sequential", most=3)).max_width == 7


def singles(*sizes):
    """Columns of single completions with so many prompt and completion tokens, and a label."""
    return read_columns(completions(*(([7] * p, [8] * c, label) for p, c, label in sizes)))


def test_of_many_batches_some_are_looked_at_from_first_to_last(monkeypatch):
    monkeypatch.setattr(statistics, "MOST_BATCHES", 3)
    columns = sized(*((1, size, 1) for size in range(2, 21)))  # ten batches of 2, the last of 1
    drawing = Drawing(size=2, order="sequential")
    assert drawing.rows(columns).tolist() == [0, 1, 8, 9, 18]
    found = batches_of(columns, drawing)
    assert (found.drawn, found.max_width) == (3, 21)
    assert Drawing(size=2, order="sequential", most=3).rows(columns).tolist() == [0, 1, 2, 3, 4, 5]


def test_lengths_of_completions_are_told_by_label():
    lengths = lengths_of(singles((2, 3, True), (4, 1, False), (6, 2, True)))
    assert (lengths.rows, lengths.desirable.mean, lengths.undesirable.mean) == (3, 2.5, 1)
    assert (lengths.whole.min, lengths.whole.max) == (5, 8)
    assert lengths_of(singles((2, 3, True))).undesirable is None


def test_batches_of_completions_hold_a_sequence_a_row():
    found = batches_of(singles((2, 3, True), (4, 1, False), (6, 2, True)), Drawing(size=2, order="sequential"))
    # Rows of 5, 5 and 8 tokens.
    assert (found.drawn, found.max_width, found.max_completion_tokens) == (2, 8, 4)
    assert found.mean_width == 6
    assert found.real_tokens == 9
    assert found.padding == 0


def test_batches_of_one_side_are_as_wide_as_that_side():
    found = batches_of(sized((2, 3, 1), (4, 1, 1), (6, 2, 5)), Drawing(size=2, order="sequential"), ["chosen"])
    assert (found.drawn, found.max_width, found.max_completion_tokens) == (2, 8, 4)
    assert found.real_tokens == 9


def test_mismatched_rows_by_hand():
    columns = singles((2, 3, True), (4, 1, False), (6, 2, True), (1, 9, True), (5, 4, False))
    found = mismatched_batches_of(columns, Drawing(size=3, order="sequential"), None)
    # 2 + 2, 4 + 3, 6 + 1; then 1 + 4, 5 + 9.
    assert (found.max_width, found.max_completion_tokens) == (14, 13)
    assert found.mean_width == pytest.approx((3 * 7 + 2 * 14) / 5)
    assert found.real_tokens == (18 + 19) / 2
    assert mismatched_batches_of(columns, Drawing(size=3, order="sequential"), 8).max_width == 8
    whole = mismatched_batches_of(columns, Drawing(size=5, order="sequential"), None)
    assert whole.max_width == 14


def test_a_completion_with_either_label_contradicts_itself():
    rows = [([1], [2, 3], True), ([1], [2, 3], False), ([1], [2, 3], True), ([1], [2], False)]
    found = repeats_in(read_columns(completions(*rows)), places_of(completions(*rows)))
    assert (found.prompts, found.rows, found.contradicted) == (3, 1, 3)
    assert found.places == ["row 0", "row 1", "row 2"]
