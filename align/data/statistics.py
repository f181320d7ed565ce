"""What prepared rows look like, pairs or single completions: lengths, batches, and what is there twice."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import torch
from numpy.typing import NDArray
from transformers.trainer_pt_utils import get_length_grouped_indices

from align.data.row_columns import Digests, RowColumns

PLACES = 3
"""Places that are named of what is there twice."""
MOST_BATCHES = 2000
"""Batches that are looked at to tell what batches are like."""

Integers = NDArray[np.int64]


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
class Lengths:
    """Lengths of a split's pairs, in tokens; ``whole`` is the prompt with the longer completion.

    Attributes:
        rows: how many pairs.
        chosen_longer: share of pairs whose chosen completion is the longer one.
        same_length: share of pairs whose completions are equally long.
    """

    rows: int
    prompt: Spread
    chosen: Spread
    rejected: Spread
    whole: Spread
    chosen_longer: float
    same_length: float


@dataclass(frozen=True, slots=True, kw_only=True)
class CompletionLengths:
    """Lengths of a split's single completions, in tokens; ``whole`` is the prompt with the completion.

    Attributes:
        rows: how many completions.
        desirable: of desirable completions; None where there are none.
        undesirable: of undesirable ones; None where there are none.
    """

    rows: int
    prompt: Spread
    desirable: Spread | None
    undesirable: Spread | None
    whole: Spread


@dataclass(frozen=True, slots=True, kw_only=True)
class Batches:
    """What batches are like, from as many as were drawn.

    Attributes:
        drawn: how many were looked at.
        mean_width: tokens that sequences are padded to, on average.
        max_width: the same of the widest batch.
        mean_completion_tokens: completion tokens of all sequences of a batch, on average.
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
        prompts: rows whose prompt another row before them has, as pairs of one prompt have by design.
        rows: rows that are the same as one before them, token for token and by label.
        contradicted: pairs that are there with chosen and rejected swapped as well; completions that are there with
            the other label.
        places: of some of the repeated and the contradicted rows.
    """

    prompts: int
    rows: int
    contradicted: int
    places: list[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Leak:
    """Held-out rows whose prompt is trained on.

    Attributes:
        prompts: how many.
        share: of the held-out rows.
        rows: how many of them are trained on token for token.
        places: of some of them.
    """

    prompts: int
    share: float
    rows: int
    places: list[str]


def lengths_of(columns: RowColumns) -> Lengths | CompletionLengths:
    """Return where a split's lengths lie."""
    if columns.desirable is not None:
        sizes = columns.sides["completion"]
        parts = (sizes[columns.desirable], sizes[~columns.desirable])
        desirable, undesirable = (Spread.of(part) if len(part) else None for part in parts)
        return CompletionLengths(
            rows=len(columns),
            prompt=Spread.of(columns.prompt),
            desirable=desirable,
            undesirable=undesirable,
            whole=Spread.of(columns.longest),
        )
    chosen, rejected = columns.sides["chosen"], columns.sides["rejected"]
    return Lengths(
        rows=len(columns),
        prompt=Spread.of(columns.prompt),
        chosen=Spread.of(chosen),
        rejected=Spread.of(rejected),
        whole=Spread.of(columns.longest),
        chosen_longer=float((chosen > rejected).mean()),
        same_length=float((chosen == rejected).mean()),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Drawing:
    """How batches are drawn.

    Attributes:
        size: rows in a batch.
        order: ``group_by_length`` as transformers groups, ``sequential``; anything else is at random.
        accumulate: batches an optimiser step sees; rows are grouped by length over all of them.
        most: batches that a run sees, on all processes; None for all. Of these, :data:`MOST_BATCHES` are looked at.
    """

    size: int
    order: str = "random"
    accumulate: int = 1
    most: int | None = None

    def rows(self, columns: RowColumns) -> Integers:
        """Return the numbers of the rows that are drawn, batch after batch; the same at every call.

        Those of a part of the batches are of evenly spaced ones: grouped by length, long ones come before short ones.
        """
        order = _order(columns, self)[: None if self.most is None else self.size * self.most]
        batches = -(-len(order) // self.size)
        if batches <= MOST_BATCHES:
            return order
        chosen = np.linspace(0, batches - 1, MOST_BATCHES).astype(np.int64)
        return np.concatenate([order[self.size * number : self.size * (number + 1)] for number in chosen])


def batches_of(columns: RowColumns, drawing: Drawing, sides: Sequence[str] | None = None) -> Batches:
    """Draw batches as training does, and say what they are like.

    Args:
        columns: of the split.
        drawing: how.
        sides: those that are computed, a sequence each; absent: all that a row has.
    """
    index = drawing.rows(columns)
    return _told(
        columns.prompt[index], [columns.sides[side][index] for side in sides or columns.sides], size=drawing.size
    )


def mismatched_batches_of(columns: RowColumns, drawing: Drawing, max_length: int | None) -> Batches:
    """Say what the same batches are like with each prompt before another row's completion.

    It is that of the row before, as training takes it, and for the first row of a batch that of the last.

    Args:
        columns: of a split of single completions.
        drawing: how batches are drawn.
        max_length: longest prompt + completion, in tokens; the end of the completion is cut.
    """
    index = drawing.rows(columns)
    number = np.arange(len(index))
    first = number % drawing.size == 0
    last = np.minimum(number + drawing.size, len(index)) - 1
    prompt, completion = columns.prompt[index], columns.sides["completion"][index]
    other = completion[np.where(first, last, number - 1)]
    if max_length is not None:
        other = np.minimum(other, np.maximum(max_length - prompt, 1))
    return _told(prompt, [other], size=drawing.size)


def repeats_in(columns: RowColumns, where: Callable[[Integers], list[str]]) -> Repeats:
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


def leak_between(train: RowColumns, held_out: RowColumns, where: Callable[[Integers], list[str]]) -> Leak:
    """Count held-out rows whose prompt is trained on.

    Args:
        train: columns of the split that is trained on.
        held_out: columns of the held-out split.
        where: returns the places of held-out rows, given their numbers.
    """
    known = np.isin(held_out.prompts, train.prompts)
    return Leak(
        prompts=int(known.sum()),
        share=float(known.mean()),
        rows=int(np.isin(held_out.rows, train.rows).sum()),
        places=where(np.flatnonzero(known)[:PLACES]),
    )


def places_of(dataset: datasets.Dataset) -> Callable[[Integers], list[str]]:
    """Return a function from numbers of rows to their places in the source."""

    def where(rows: Integers) -> list[str]:
        return [str(dataset[int(row)]["where"]) for row in rows]

    return where


def _told(prompt: NDArray[np.int32], sides: Sequence[NDArray[np.int32]], *, size: int) -> Batches:
    """Return what batches are like, given their rows one after the other."""
    starts = np.arange(0, len(prompt), size)
    rows = np.diff(np.append(starts, len(prompt)))
    widths = np.maximum.reduceat(prompt + np.maximum.reduce(sides), starts).astype(np.int64)
    completions = np.add.reduceat(np.add.reduce(sides), starts, dtype=np.int64)
    real = completions + len(sides) * np.add.reduceat(prompt, starts, dtype=np.int64)
    return Batches(
        drawn=len(starts),
        mean_width=float(np.average(widths, weights=rows)),
        max_width=int(widths.max()),
        mean_completion_tokens=float(completions.mean()),
        max_completion_tokens=int(completions.max()),
        real_tokens=float(real.mean()),
        padding=float(1 - real.sum() / (len(sides) * rows * widths).sum()),
    )


def _order(columns: RowColumns, drawing: Drawing) -> Integers:
    if drawing.order == "sequential":
        return np.arange(len(columns))
    generator = torch.Generator().manual_seed(0)
    if drawing.order == "group_by_length":
        lengths = columns.longest.tolist()
        grouped = get_length_grouped_indices(  # type: ignore[no-untyped-call]
            lengths, drawing.size * drawing.accumulate, generator=generator
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
