"""A few rows of a batch: the shortest and the longest, their ends scored, laid out as all of them are."""

import pytest
import torch

from align.data.collate import PairCollator, UnpairedCollator
from align.data.negatives import NegativeCollator
from align.data.packing import Packing, prefix_of
from align.models.layout import Layout
from align.trainers import few_rows as few

LENGTHS = ((3, 4), (2, 1), (5, 6), (4, 4))
"""Tokens of both completions of each pair; prompts have one more than the first."""


def pairs():
    return [
        {
            "prompt_ids": [10 * i + k for k in range(first + 1)],
            "chosen_ids": [100 + 10 * i + k for k in range(first)],
            "rejected_ids": [200 + 10 * i + k for k in range(second)],
            "weight": 1.0 + i,
        }
        for i, (first, second) in enumerate(LENGTHS)
    ]


def rows_of(batch):
    """Return prompt and completion of every row, as lists."""
    found = []
    for ids, real, scored in zip(*(batch[n] for n in ("input_ids", "attention_mask", "completion_mask")), strict=True):
        found.append((ids[real.bool() & ~scored].tolist(), ids[scored].tolist()))
    return found


def test_the_shortest_and_the_longest_pair():
    packing = Packing()
    batch = PairCollator(0, packing=packing)(pairs())
    found = few.few_rows(batch, packing.of_sides)
    one, other = pairs()[1], pairs()[2]
    assert rows_of(found) == [
        (row["prompt_ids"], row[f"{s}_ids"]) for s in ("chosen", "rejected") for row in (one, other)
    ]
    assert found["weight"].tolist() == [2.0, 3.0]
    laid, whole = (Layout.of(each, prefix_of(("chosen", "rejected"))) for each in (found, batch))
    assert len(laid.edges) == 4
    assert laid.targets.tolist() == [t for t in whole.targets.tolist() if t // 10 % 10 in (1, 2)]


def test_only_the_last_tokens_are_scored(monkeypatch):
    monkeypatch.setattr(few, "SCORED", 2)
    batch = PairCollator(0)(pairs())
    found = few.few_rows(batch, None)
    assert [ids for _, ids in rows_of(found)] == [[110, 111], [123, 124], [210], [224, 225]]
    assert not [name for name in found if name.startswith("packed")]
    assert found["input_ids"].shape[1] == 12


@pytest.mark.parametrize("count", [0, 1, 3])
def test_samples_beside_negatives(count):
    negatives = [
        {
            "prompt_ids": row["prompt_ids"],
            "completion_ids": row["rejected_ids"],
            "samples": [[300 + 10 * i + k] for k in range(count)],
        }
        for i, row in enumerate(pairs())
    ]
    found = few.few_rows(NegativeCollator(0, None)(negatives), None)
    samples = [[300 + 10 * i + k] for i in (1, 2) for k in range(min(count, 2))]
    assert [ids for _, ids in rows_of(found)] == [*samples, [210], list(range(220, 226))]
    assert len(found["weight"]) == 2


def test_single_completions():
    rows = [{**row, "completion_ids": row["chosen_ids"], "desirable": i % 2} for i, row in enumerate(pairs())]
    packing = Packing()
    batch = UnpairedCollator(0, mismatched=False, max_length=None, packing=packing)(rows)
    found = few.few_rows(batch, lambda some: packing.keys(prefix_of(()), [row[2:] for row in some], range(len(some))))
    assert rows_of(found) == [(row["prompt_ids"], row["chosen_ids"]) for row in (pairs()[1], pairs()[2])]
    assert found["desirable"].tolist() == [True, False]
    assert torch.equal(Layout.of(found, prefix_of(())).scored.sum(-1), torch.tensor([2, 5]))


def test_a_batch_of_one():
    batch = PairCollator(0)(pairs()[:1])
    assert len(few.few_rows(batch, None)["input_ids"]) == 2
