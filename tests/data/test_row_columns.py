"""Columns that are kept of prepared rows, beside plain loops."""

import datasets
import pytest

from align.data import row_columns
from align.data.prepare import prepare_pairs, prepare_unpaired
from align.data.row_columns import read_columns
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


def completions(*rows):
    """A data set of prepared columns from (prompt, completion, desirable)."""
    return datasets.Dataset.from_list(
        [
            {
                "prompt_ids": list(prompt),
                "completion_ids": list(completion),
                "desirable": desirable,
                "where": f"row {number}",
                "prompt_hash": f"{sum(prompt):016x}",
            }
            for number, (prompt, completion, desirable) in enumerate(rows)
        ]
    )


@pytest.mark.parametrize("part", [1, 5, 1000])
def test_columns_are_those_of_a_plain_loop_however_they_are_read(part, tokenizer, pairs_file, monkeypatch):
    monkeypatch.setattr(row_columns, "PART", part)
    dataset = prepare_pairs(SourceSettings(path=str(pairs_file)), tokenizer).dataset.select([5, 3, 3, 20, 11])
    columns = read_columns(dataset)
    assert columns.prompt.tolist() == [len(row["prompt_ids"]) for row in dataset]
    assert columns.sides["chosen"].tolist() == [len(row["chosen_ids"]) for row in dataset]
    assert columns.sides["rejected"].tolist() == [len(row["rejected_ids"]) for row in dataset]
    assert columns.longest.tolist() == [row["length"] for row in dataset]
    assert columns.prompts.tolist() == [int(row["prompt_hash"], 16) for row in dataset]
    ids = [row[name] for row in dataset for name in ("prompt_ids", "chosen_ids", "rejected_ids")]
    assert columns.largest_id == max(map(max, ids))
    assert (columns.rows[1] == columns.rows).tolist() == [False, True, True, False, False]


@pytest.mark.parametrize("part", [1, 5, 1000])
def test_completions_are_read_one_by_one_with_their_labels(part, tokenizer, pairs_file, monkeypatch):
    monkeypatch.setattr(row_columns, "PART", part)
    prepared = prepare_unpaired(SourceSettings(path=str(pairs_file)), tokenizer).dataset
    dataset = prepared.select([5, 3, 3, 20, 11])
    columns = read_columns(dataset)
    assert len(columns) == 5
    assert columns.sides["completion"].tolist() == [len(row["completion_ids"]) for row in dataset]
    assert columns.longest.tolist() == [row["length"] for row in dataset]
    assert columns.desirable.tolist() == [row["desirable"] for row in dataset] == [False, False, False, True, False]
    assert columns.largest_id == max(max(row[name]) for row in dataset for name in ("prompt_ids", "completion_ids"))
    assert (columns.rows[1] == columns.rows).tolist() == [False, True, True, False, False]


def test_a_label_tells_rows_apart():
    columns = read_columns(completions(([1], [2], True), ([1], [2], False)))
    assert columns.rows[0] != columns.rows[1]
    assert columns.rows.tolist() == columns.swapped[::-1].tolist()


def test_one_side_alone_may_be_narrower():
    columns = read_columns(made(([1, 1], [2], [3, 3, 3]), ([1], [2, 2], [3])))
    assert columns.longest.tolist() == [5, 3]
    assert columns.widths(("chosen",)).tolist() == [3, 3]


def test_prompts_that_came_without_a_digest_of_ours_are_told_apart():
    columns = read_columns(made(([1], [2], [3]), ([1], [4], [5]), ([6], [7], [8]), hashes=["tea", "tea", "rain"]))
    assert columns.prompts[0] == columns.prompts[1] != columns.prompts[2]
