"""What prepared pairs look like: lengths, batches, and what is there twice; a few bytes are kept a row."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import torch
from numpy.typing import NDArray
from tqdm import tqdm
from transformers.trainer_pt_utils import get_length_grouped_indices

from align.data.inputs import ID_COLUMNS

PART = 1000
"""Rows that are read at a time."""
PLACES = 3
"""Places that are named of what is there twice."""
MOST_BATCHES = 2000
"""Batches that are looked at to tell what batches are like."""

Integers = NDArray[np.int64]
Digests = NDArray[np.uint64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Spread:
    """Where numbers lie; ``p95`` is what 95 % of them do not exceed."""

    min: int
    mean: float
    median: float
    p95: float
    max: int

    @classmethod
    def of(cls, values: NDArray[Any]) -> "Spread":
        """Return where values lie; there must be one at least."""
        median, p95 = np.percentile(values, [50, 95])
        return cls(
            min=int(values.min()),
            mean=float(values.mean()),
            median=float(median),
            p95=float(p95),
            max=int(values.max()),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairColumns:
    """What is kept of each pair: four lengths in tokens, and three digests of 64 bits.

    Attributes:
        prompt: tokens of the prompts.
        chosen: tokens of the chosen completions.
        rejected: tokens of the rejected completions.
        prompts: digest of each prompt's text.
        rows: digest of each row's ids.
        swapped: digest that a row would have with its sides swapped.
        largest_id: largest token id of all.
    """

    prompt: NDArray[np.int32]
    chosen: NDArray[np.int32]
    rejected: NDArray[np.int32]
    prompts: Digests
    rows: Digests
    swapped: Digests
    largest_id: int

    @property
    def longest(self) -> NDArray[np.int32]:
        """Tokens of the prompt and the longer completion: how wide a batch must be for the pair."""
        return self.prompt + np.maximum(self.chosen, self.rejected)

    def __len__(self) -> int:
        return len(self.prompt)


@dataclass(frozen=True, slots=True, kw_only=True)
class Lengths:
    """Lengths of a split's pairs, in tokens; ``whole`` is the prompt with the longer completion.

    Attributes:
        chosen_longer: share of pairs whose chosen completion is the longer one.
        same_length: share of pairs whose completions are equally long.
    """

    pairs: int
    prompt: Spread
    chosen: Spread
    rejected: Spread
    whole: Spread
    chosen_longer: float
    same_length: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What batches are like, from as many as were drawn.

    Attributes:
        drawn: how many were looked at.
        mean_width: tokens that rows are padded to, on average.
        max_width: the same of the widest batch.
        mean_completion_tokens: completion tokens of all rows of a batch, on average.
        max_completion_tokens: the same of the batch with the most.
        real_tokens: tokens of a batch that are no padding, on average.
        padding: share of positions that are padding.
    """

    drawn: int
    mean_width: float
    max_width: int
    mean_completion_tokens: float
    max_completion_tokens: int
    real_tokens: float
    padding: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """What a split holds more than once.

    Attributes:
        prompts: pairs whose prompt another pair before them has, as pairs of one prompt have by design.
        rows: pairs that are the same as one before them, token for token.
        contradicted: pairs that are there with chosen and rejected swapped as well.
        places: of some of the repeated and the contradicted pairs.
    """

    prompts: int
    rows: int
    contradicted: int
    places: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Held-out pairs whose prompt is trained on.

    Attributes:
        pairs: how many.
        share: of the held-out pairs.
        rows: how many of them are trained on token for token.
        places: of some of them.
    """

    pairs: int
    share: float
    rows: int
    places: list[str]


def read_columns(dataset: datasets.Dataset, name: str = "pairs") -> PairColumns:
    """Read what is kept of each pair, with a bar.

    Args:
        dataset: of :class:`~align.data.prepare.PreparedPairs`, or part of one.
        name: what the bar says is counted.
    """
    parts: dict[str, list[NDArray[Any]]] = {}
    largest = 0
    for table in _tables(dataset, name):
        found, biggest = _part(table)
        largest = max(largest, biggest)
        for column, values in found.items():
            parts.setdefault(column, []).append(values)
    return PairColumns(largest_id=largest, **{column: np.concatenate(found) for column, found in parts.items()})


def lengths_of(columns: PairColumns) -> Lengths:
    """Return where a split's lengths lie."""
    return Lengths(
        pairs=len(columns),
        prompt=Spread.of(columns.prompt),
        chosen=Spread.of(columns.chosen),
        rejected=Spread.of(columns.rejected),
        whole=Spread.of(columns.longest),
        chosen_longer=float((columns.chosen > columns.rejected).mean()),
        same_length=float((columns.chosen == columns.rejected).mean()),
    )


def batches_of(
    columns: PairColumns, size: int, *, order: str = "random", accumulate: int = 1, most: int = MOST_BATCHES
) -> Batches:
    """Draw batches as training does, and say what they are like.

    Args:
        columns: of the split.
        size: pairs in a batch.
        order: ``group_by_length`` as transformers groups, ``sequential``; anything else is at random.
        accumulate: batches an optimiser step sees; pairs are grouped by length over all of them.
        most: look at no more batches than this; where a run is shorter, those are the ones it sees.
    """
    index = _order(columns, size, order, accumulate)[: size * min(most, MOST_BATCHES)]
    starts = np.arange(0, len(index), size)
    rows = np.diff(np.append(starts, len(index)))
    widths = np.maximum.reduceat(columns.longest[index], starts).astype(np.int64)
    completions = np.add.reduceat((columns.chosen + columns.rejected)[index], starts, dtype=np.int64)
    prompts = np.add.reduceat(columns.prompt[index], starts, dtype=np.int64)
    real = completions + 2 * prompts
    return Batches(
        drawn=len(starts),
        mean_width=float(np.average(widths, weights=rows)),
        max_width=int(widths.max()),
        mean_completion_tokens=float(completions.mean()),
        max_completion_tokens=int(completions.max()),
        real_tokens=float(real.mean()),
        padding=float(1 - real.sum() / (2 * rows * widths).sum()),
    )


def repeats_in(columns: PairColumns, where: Callable[[Integers], list[str]]) -> Repeats:
    """Count what a split holds more than once.

    Args:
        columns: of the split.
        where: returns the places of rows, given their numbers.
    """
    again = _seen_before(columns.rows)
    against = np.isin(columns.swapped, columns.rows)
    named = np.flatnonzero(again | against)[:PLACES]
    return Repeats(
        prompts=int(_seen_before(columns.prompts).sum()),
        rows=int(again.sum()),
        contradicted=int(against.sum()),
        places=where(named),
    )


def leak_between(train: PairColumns, held_out: PairColumns, where: Callable[[Integers], list[str]]) -> Leak:
    """Count held-out pairs whose prompt is trained on.

    Args:
        train: columns of the split that is trained on.
        held_out: columns of the held-out split.
        where: returns the places of held-out rows, given their numbers.
    """
    known = np.isin(held_out.prompts, train.prompts)
    return Leak(
        pairs=int(known.sum()),
        share=float(known.mean()),
        rows=int(np.isin(held_out.rows, train.rows).sum()),
        places=where(np.flatnonzero(known)[:PLACES]),
    )


def places_of(dataset: datasets.Dataset) -> Callable[[Integers], list[str]]:
    """Return a function from numbers of rows to their places in the source."""

    def where(rows: Integers) -> list[str]:
        return [str(dataset[int(row)]["where"]) for row in rows]

    return where


def _tables(dataset: datasets.Dataset, name: str) -> Iterator[pa.Table]:
    wanted = dataset.select_columns([*ID_COLUMNS, "prompt_hash"]).with_format("arrow")
    with tqdm(total=len(dataset), desc=f"counting {name}", unit=" pairs", leave=False) as bar:
        for table in wanted.iter(batch_size=PART):
            yield table
            bar.update(len(table))


def _part(table: pa.Table) -> tuple[Mapping[str, NDArray[Any]], int]:
    """Return what is kept of some rows, and their largest id."""
    prompt, chosen, rejected = (_ids(table, column) for column in ID_COLUMNS)
    digests = {
        (name, side): _digest(ids, side)
        for name, ids, sides in (("prompt", prompt, (0,)), ("chosen", chosen, (1, 2)), ("rejected", rejected, (1, 2)))
        for side in sides
    }
    found: dict[str, NDArray[Any]] = {
        "prompt": prompt[1],
        "chosen": chosen[1],
        "rejected": rejected[1],
        "prompts": _texts(table["prompt_hash"].to_pylist()),
        "rows": digests["prompt", 0] + digests["chosen", 1] + digests["rejected", 2],
        "swapped": digests["prompt", 0] + digests["chosen", 2] + digests["rejected", 1],
    }
    return found, int(max(ids.max() for ids, _ in (prompt, chosen, rejected)))


def _ids(table: pa.Table, column: str) -> tuple[NDArray[np.int32], NDArray[np.int32]]:
    """Return all ids of a column behind one another, and how many each row has."""
    lists = table[column].combine_chunks()
    lists = lists.chunk(0) if isinstance(lists, pa.ChunkedArray) else lists
    return lists.flatten().to_numpy(), lists.value_lengths().to_numpy().astype(np.int32)


def _digest(ids: tuple[NDArray[np.int32], NDArray[np.int32]], side: int) -> Digests:
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


def _order(columns: PairColumns, size: int, order: str, accumulate: int) -> Integers:
    if order == "sequential":
        return np.arange(len(columns))
    generator = torch.Generator().manual_seed(0)
    if order == "group_by_length":
        lengths = columns.longest.tolist()
        grouped = get_length_grouped_indices(  # type: ignore[no-untyped-call]
            lengths, size * accumulate, generator=generator
        )
        return np.array(grouped, dtype=np.int64)
    permuted: Integers = torch.randperm(len(columns), generator=generator).numpy()
    return permuted


def _seen_before(digests: Digests) -> NDArray[np.bool_]:
    """Return which numbers stood before them already."""
    first = np.unique(digests, return_index=True)[1]
    again = np.ones(len(digests), dtype=np.bool_)
    again[first] = False
    return again
