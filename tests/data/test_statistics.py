"""Lengths, batches and repeats, beside plain loops and numbers worked out by hand."""

import datasets
import numpy as np
import pytest

from align.data import statistics
from align.data.prepare import prepare_pairs
from align.data.statistics import Spread, batches_of, leak_between, lengths_of, places_of, read_columns, repeats_in
from align.recipe.schema import SourceSettings


def made(*rows, hashes=None):
    """A data set of prepared columns from (prompt, chosen, rejected) ids."""
    return datasets.Dataset.from_list(
        [
            {
                "prompt_ids": list(prompt),
                "chosen_ids": list(chosen),
                "rejected_ids": list(rejected),
                "where": f"row {number}",
                "prompt_hash": hashes[number] if hashes else f"{sum(prompt):016x}",
            }
            for number, (prompt, chosen, rejected) in enumerate(rows)
        ]
    )


def sized(*sizes):
    """Columns of pairs with so many prompt, chosen and rejected tokens."""
    return read_columns(made(*(([7] * p, [8] * c, [9] * r) for p, c, r in sizes)))


def test_where_numbers_lie():
    found = Spread.of(np.array([1, 2, 3, 4, 10]))
    assert (found.min, found.mean, found.median, found.max) == (1, 4.0, 3.0, 10)
    assert found.p95 == pytest.approx(8.8)  # 80 % of the way from 4 to 10


@pytest.mark.parametrize("part", [1, 5, 1000])
def test_columns_are_those_of_a_plain_loop_however_they_are_read(part, tokenizer, pairs_file, monkeypatch):
    monkeypatch.setattr(statistics, "PART", part)
    dataset = prepare_pairs(SourceSettings(path=str(pairs_file)), tokenizer).dataset.select([5, 3, 3, 20, 11])
    columns = read_columns(dataset)
    assert columns.prompt.tolist() == [len(row["prompt_ids"]) for row in dataset]
    assert columns.chosen.tolist() == [len(row["chosen_ids"]) for row in dataset]
    assert columns.rejected.tolist() == [len(row["rejected_ids"]) for row in dataset]
    assert columns.longest.tolist() == [row["length"] for row in dataset]
    assert columns.prompts.tolist() == [int(row["prompt_hash"], 16) for row in dataset]
    ids = [row[name] for row in dataset for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    assert columns.largest_id == max(map(max, ids))
    assert (columns.rows[1] == columns.rows).tolist() == [False, True, True, False, False]


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


def test_prompts_that_came_without_a_digest_of_ours_are_told_apart():
    columns = read_columns(made(([1], [2], [3]), ([1], [4], [5]), ([6], [7], [8]), hashes=["tea", "tea", "rain"]))
    assert columns.prompts[0] == columns.prompts[1] != columns.prompts[2]


def test_a_held_out_prompt_that_is_trained_on_is_found():
    train = made(([1], [2], [3]), ([4], [5], [6]))
    held_out = made(([9], [2], [3]), ([4], [5], [6]), ([4], [7], [8]))
    leak = leak_between(read_columns(train), read_columns(held_out), places_of(held_out))
    assert (leak.pairs, leak.rows, leak.places) == (2, 1, ["row 1", "row 2"])
    assert leak.share == pytest.approx(2 / 3)


def test_lengths_by_hand():
    lengths = lengths_of(sized((2, 3, 1), (4, 1, 1), (6, 2, 5)))
    assert lengths.pairs == 3
    assert (lengths.prompt.min, lengths.prompt.max, lengths.prompt.mean) == (2, 6, 4.0)
    assert (lengths.whole.min, lengths.whole.max) == (5, 11)
    assert lengths.chosen_longer == pytest.approx(1 / 3)
    assert lengths.same_length == pytest.approx(1 / 3)


def test_batches_by_hand():
    columns = sized((2, 3, 1), (4, 1, 1), (6, 2, 5))
    found = batches_of(columns, 2, order="sequential")
    # The first batch pads 4 rows of 5, 5, 3 and 5 tokens to 5, the second two rows of 8 and 11 to 11.
    assert (found.drawn, found.max_width, found.max_completion_tokens) == (2, 11, 7)
    assert found.mean_width == pytest.approx((5 + 5 + 11) / 3)
    assert found.mean_completion_tokens == 6.5
    assert found.real_tokens == (18 + 19) / 2
    assert found.padding == pytest.approx(1 - 37 / (20 + 22))


def test_grouping_by_length_pads_less_than_chance():
    generator = np.random.default_rng(0)
    columns = sized(*generator.integers(1, 60, (400, 3)).tolist())
    random, grouped = (batches_of(columns, 4, order=order) for order in ("random", "group_by_length"))
    assert grouped.padding < 0.7 * random.padding
    assert grouped.drawn == random.drawn == 100
    assert grouped.max_width == random.max_width == columns.longest.max()


def test_a_short_run_is_told_from_the_batches_it_has():
    columns = sized(*((size, 1, 1) for size in range(1, 21)))
    assert batches_of(columns, 2, order="sequential", most=3).max_width == 7
