"""Negatives alone: responses that people marked as bad, and beside each the model's own samples."""

from collections.abc import Mapping, Sequence
from typing import Any

import datasets
import torch
from torch import Tensor

from align.data.collate import KEPT, numbers, padded
from align.data.logp_store import LogpStore, kept_table
from align.data.order import FILLER
from align.data.packing import Packing
from align.data.rows import DataError
from align.recipe.d2o import D2oSettings

SAMPLES = "samples"
"""The column of a negative's samples, lists of ids."""


def negatives_of(rows: datasets.Dataset, name: str) -> datasets.Dataset:
    """Return the undesirable of prepared single completions.

    Raises:
        DataError: if there is none.
    """
    found = rows.filter(lambda batch: [not good for good in batch["desirable"]], batched=True, desc="negatives")
    if not len(found):
        raise DataError(
            f"{name}: all {len(rows)} completions are desirable, and d2o trains on the others",
            fix="give pairs, whose rejected side is read, or rows with label: false",
        )
    return found.flatten_indices()  # what reads the table itself is to see these rows alone


def with_samples(rows: datasets.Dataset, samples: Sequence[Sequence[Sequence[int]]]) -> datasets.Dataset:
    """Return negatives with the samples of each."""
    kind = datasets.List(datasets.List(datasets.Value("int32")))
    return rows.add_column(SAMPLES, [[list(ids) for ids in each] for each in samples], feature=kind)


def check_samples(rows: datasets.Dataset, settings: D2oSettings, name: str) -> None:
    """Refuse samples that negatives bring and that are not as many as ``settings`` asks for.

    Raises:
        DataError: naming the first row.
    """
    for number, samples in enumerate(rows[SAMPLES]):
        if not samples or (settings.level == "distribution" and len(samples) != settings.samples):
            raise DataError(
                f"{name}, row {number}: column {SAMPLES!r} has {len(samples)}, and d2o.samples={settings.samples}",
                fix="set d2o.samples to the number that all rows have, or leave the column out",
            )


def one_a_sample(rows: datasets.Dataset) -> datasets.Dataset:
    """Return a row for each sample, with the same negative."""

    def apart(batch: dict[str, list[Any]]) -> dict[str, list[Any]]:
        counts = [len(each) for each in batch[SAMPLES]]
        repeated = {
            name: [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
            for name, values in batch.items()
        }
        return {**repeated, SAMPLES: [[ids] for each in batch[SAMPLES] for ids in each]}

    return rows.map(apart, batched=True, features=rows.features, desc="a row a sample")


def negatives_in(batch: Mapping[str, Tensor]) -> list[dict[str, Any]]:
    """Return the negatives of a batch as rows again: ids of prompt and completion."""
    count = len(batch["weight"])
    columns = (batch[name][-count:].tolist() for name in ("input_ids", "attention_mask", "completion_mask"))
    rows = []
    for ids, real, completion in zip(*columns, strict=True):
        kept = [(token, out) for token, there, out in zip(ids, real, completion, strict=True) if there]
        prompt, answer = ([token for token, out in kept if bool(out) == of] for of in (False, True))
        rows.append({"prompt_ids": prompt, "completion_ids": answer})
    return rows


class NegativeCollator:
    """Rows of samples first, those of the first negative before those of the second, then a row for each negative.

    Keys are as in :class:`~align.data.collate.PairBatch`, without scores. Where rows have no samples, there are none.

    Args:
        pad_token_id: what padding is filled with.
        max_length: longest prompt + sample, in tokens; the end of a sample is cut.
        packing: how rows are laid out beside the padded ones, samples as chosen; None for not at all.
    """

    def __init__(self, pad_token_id: int, max_length: int | None, packing: Packing | None = None) -> None:
        self.pad_token_id, self.max_length, self.packing = pad_token_id, max_length, packing
        self.kept: LogpStore | None = None
        self.kept_of_samples: LogpStore | None = None

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
        """Return the batch of rows with ``prompt_ids``, ``completion_ids``, and perhaps samples and a weight."""
        counts = {len(row.get(SAMPLES) or ()) for row in rows}
        if len(counts) > 1:
            raise ValueError(f"rows of a batch have {sorted(counts)} samples; give each negative as many as the others")
        laid = [
            ("chosen", number, row["prompt_ids"], self.cut(row["prompt_ids"], ids))
            for number, row in enumerate(rows)
            for ids in row.get(SAMPLES) or ()
        ]
        laid += [("rejected", number, row["prompt_ids"], row["completion_ids"]) for number, row in enumerate(rows)]
        ids, real, completion = padded([row[2:] for row in laid], self.pad_token_id)
        kept = {}
        if self.kept is not None:
            of_samples = [row[2:] for row in laid if row[0] == "chosen"]
            if of_samples:
                store = self.kept if self.kept_of_samples is None else self.kept_of_samples
                kept[f"{SAMPLES}_{KEPT}"] = kept_table(store, of_samples)
            kept[KEPT] = kept_table(self.kept, [row[2:] for row in laid if row[0] == "rejected"])
        return {
            "input_ids": ids,
            "attention_mask": real,
            "completion_mask": completion,
            "weight": numbers(rows, "weight", 1.0),
            "real": torch.tensor([not row.get(FILLER, False) for row in rows]),
            **kept,
            **({} if self.packing is None else self.packing.of_sides(laid)),
        }

    def cut(self, prompt: Sequence[int], ids: Sequence[int]) -> Sequence[int]:
        """Return a sample that fits behind its prompt."""
        return ids if self.max_length is None else ids[: max(1, self.max_length - len(prompt))]


def longest_samples(rows: datasets.Dataset) -> Tensor:
    """Return the tokens of each row's prompt with its longest sample."""
    pairs = rows.select_columns(["prompt_ids", SAMPLES])
    return torch.tensor([len(row["prompt_ids"]) + max(map(len, row[SAMPLES]), default=0) for row in pairs])
