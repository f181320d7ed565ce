"""What is kept of prepared rows, pairs or single completions, to tell what they look like; a few bytes a row."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from tqdm import tqdm

from align.data.inputs import ID_COLUMNS, UNPAIRED_ID_COLUMNS
from align.data.store import noun_of

SIDES = ("chosen", "rejected", "completion")
PART = 1000
"""Rows that are read at a time."""

Digests = NDArray[np.uint64]
Ids = tuple[NDArray[np.int32], NDArray[np.int32]]
"""All ids of a column behind one another, and how many each row has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RowColumns:
    """What is kept of each row: lengths in tokens, and three digests of 64 bits.

    Attributes:
        prompt: tokens of the prompts.
        sides: tokens of the completions: of ``chosen`` and ``rejected``, or of ``completion`` alone.
        desirable: which single completions are desirable; None for pairs.
        prompts: digest of each prompt's text.
        rows: digest of each row's ids, and of the label of a single completion.
        swapped: digest that a row would have with its sides swapped, or with the other label.
        largest_id: largest token id of all.
    """

    prompt: NDArray[np.int32]
    sides: Mapping[str, NDArray[np.int32]]
    desirable: NDArray[np.bool_] | None
    prompts: Digests
    rows: Digests
    swapped: Digests
    largest_id: int

    @property
    def longest(self) -> NDArray[np.int32]:
        """Tokens of the prompt and the longer completion."""
        return self.widths(tuple(self.sides))

    def widths(self, sides: tuple[str, ...]) -> NDArray[np.int32]:
        """Return how wide a batch must be for each row, where only some sides are computed."""
        longer: NDArray[np.int32] = np.maximum.reduce([self.sides[side] for side in sides])
        return self.prompt + longer

    def __len__(self) -> int:
        return len(self.prompt)


def read_columns(dataset: datasets.Dataset, name: str = "training") -> RowColumns:
    """Read what is kept of each row, with a bar.

    Args:
        dataset: of :class:`~align.data.prepare.PreparedPairs`, or part of one.
        name: which rows the bar says are counted.
    """
    noun = noun_of(dataset.column_names) + "s"
    columns = ID_COLUMNS if noun == "pairs" else (*UNPAIRED_ID_COLUMNS, "desirable")
    parts: dict[str, list[NDArray[Any]]] = {}
    largest = 0
    for table in _tables(dataset, columns, f"{name} {noun}"):
        found, biggest = _pairs(table) if noun == "pairs" else _completions(table)
        largest = max(largest, biggest)
        for column, values in found.items():
            parts.setdefault(column, []).append(values)
    whole = {column: np.concatenate(found) for column, found in parts.items()}
    return RowColumns(
        prompt=whole["prompt"],
        sides={side: whole[side] for side in SIDES if side in whole},
        desirable=whole.get("desirable"),
        prompts=whole["prompts"],
        rows=whole["rows"],
        swapped=whole["swapped"],
        largest_id=largest,
    )


def _tables(dataset: datasets.Dataset, columns: tuple[str, ...], name: str) -> Iterator[pa.Table]:
    wanted = dataset.select_columns([*columns, "prompt_hash"]).with_format("arrow")
    with tqdm(total=len(dataset), desc=f"counting {name}", unit=" rows", leave=False) as bar:
        for table in wanted.iter(batch_size=PART):
            yield table
            bar.update(len(table))


def _pairs(table: pa.Table) -> tuple[dict[str, NDArray[Any]], int]:
    """Return what is kept of some pairs, and their largest id."""
    prompt, chosen, rejected = (_ids(table, column) for column in ID_COLUMNS)
    start = _digest(prompt, 0)
    found: dict[str, NDArray[Any]] = {
        "prompt": prompt[1],
        "chosen": chosen[1],
        "rejected": rejected[1],
        "prompts": _texts(table["prompt_hash"].to_pylist()),
        "rows": start + _digest(chosen, 1) + _digest(rejected, 2),
        "swapped": start + _digest(chosen, 2) + _digest(rejected, 1),
    }
    return found, int(max(ids.max() for ids, _ in (prompt, chosen, rejected)))


def _completions(table: pa.Table) -> tuple[dict[str, NDArray[Any]], int]:
    """Return what is kept of some single completions, and their largest id."""
    prompt, completion = (_ids(table, column) for column in UNPAIRED_ID_COLUMNS)
    desirable = table["desirable"].to_numpy()
    start, good, bad = _digest(prompt, 0), _digest(completion, 1), _digest(completion, 2)
    found: dict[str, NDArray[Any]] = {
        "prompt": prompt[1],
        "completion": completion[1],
        "desirable": desirable,
        "prompts": _texts(table["prompt_hash"].to_pylist()),
        "rows": start + np.where(desirable, good, bad),
        "swapped": start + np.where(desirable, bad, good),
    }
    return found, int(max(ids.max() for ids, _ in (prompt, completion)))


def _ids(table: pa.Table, column: str) -> Ids:
    """Return all ids of a column behind one another, and how many each row has."""
    lists = table[column].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    return lists.flatten().to_numpy(), lists.value_lengths().to_numpy().astype(np.int32)


def _digest(ids: Ids, side: int) -> Digests:
    """Return a number of 64 bits for each row that ids, their order and the side decide.

    Every id is mixed with its position and the side (the finaliser of splitmix64), and a row is the sum.
    """
    values, sizes = ids
    starts = np.cumsum(sizes, dtype=np.int64) - sizes
    position = np.arange(len(values), dtype=np.uint64) - np.repeat(starts, sizes).astype(np.uint64)
    mixed = values.astype(np.uint64) * np.uint64(4) + np.uint64(side) + (position << np.uint64(34))
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        mixed = (mixed ^ (mixed >> np.uint64(shift))) * np.uint64(factor)
    digests: Digests = np.add.reduceat(mixed ^ (mixed >> np.uint64(31)), starts)
    return digests


def _texts(digests: list[str]) -> Digests:
    """Return the digests of prompts as numbers; rows that came as ids may have any text for one."""
    try:
        return np.array([int(text, 16) for text in digests], dtype=np.uint64)
    except (ValueError, OverflowError):
        parts = (blake2b(text.encode(), digest_size=8).digest() for text in digests)
        return np.frombuffer(b"".join(parts), dtype=np.uint64)
