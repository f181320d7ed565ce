"""The order rows are trained in: filled up so that processes have equally many, and matched within optimiser steps.

What is decided here is the same however a step is cut into processes and accumulation: which rows a step sees, which of
them only fill the last batch up, and with which other row's completion a prompt is mismatched.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import torch
from torch.utils.data import Dataset, Sampler

FILLER = "filler"
"""Key of a drawn row: whether it is there only so that its batch is full."""
MISMATCHED = "mismatched_ids"
"""Key of a drawn row: another row's completion; None where its step has no other row."""


@dataclass(frozen=True, slots=True)
class Draw:
    """A row that is drawn.

    Attributes:
        index: of the row.
        partner: index of the row whose completion its prompt is mismatched with; None where nothing asks for one, or
            its step has no other row.
        filler: whether the row only fills a batch up: it counts nowhere.
    """

    index: int
    partner: int | None = None
    filler: bool = False


class Order(Sampler[Draw]):
    """Draws rows as another sampler does, in groups of as many as an optimiser step sees.

    Args:
        sampler: of numbers of rows.
        step: rows of an optimiser step, on all processes, over all its batches.
        fill_to: the last group is filled up to a multiple of this many rows with its last row; a divisor of ``step``.
        prompts: something equal for rows with equal prompts, a row each; given, rows are matched with partners.
        seed: of the sampler's generator, where it has one and accelerate does not seed it; with the epoch added.
    """

    def __init__(
        self,
        sampler: Iterable[int],
        *,
        step: int,
        fill_to: int = 1,
        prompts: Sequence[Hashable] | None = None,
        seed: int = 0,
    ) -> None:
        self.sampler = sampler
        self.step = step
        self.fill_to = fill_to
        self.prompts = prompts
        self.seed = seed
        self.epoch = 0

    def __len__(self) -> int:
        rows = len(self.sampler)  # type: ignore[arg-type]
        return rows + -rows % self.fill_to

    def __iter__(self) -> Iterator[Draw]:
        self._seed()
        group: list[int] = []
        for index in self.sampler:
            group.append(int(index))
            if len(group) == self.step:
                yield from self._dealt(group)
                group = []
        if group:
            dealt = self._dealt(group)
            yield from dealt
            yield from (replace(dealt[-1], filler=True) for _ in range(-len(group) % self.fill_to))

    def set_epoch(self, epoch: int) -> None:
        """Say which pass over the rows comes next; trainers do, so that a run that is continued draws as before."""
        self.epoch = epoch
        if hasattr(self.sampler, "set_epoch"):
            self.sampler.set_epoch(epoch)

    def _seed(self) -> None:
        """Give a sampler that has a generator, and no epochs of its own, the same one in every process."""
        if hasattr(self.sampler, "generator") and not hasattr(self.sampler, "set_epoch"):
            self.sampler.generator = torch.Generator().manual_seed(self.seed + self.epoch)

    def _dealt(self, group: Sequence[int]) -> list[Draw]:
        if self.prompts is None or len(group) == 1:
            return [Draw(index) for index in group]
        move = nearest_other([self.prompts[index] for index in group])
        return [Draw(index, partner=group[place - move]) for place, index in enumerate(group)]


def nearest_other(prompts: Sequence[Hashable]) -> int:
    """Return by how many places to look back, cyclically, so that nobody meets its own prompt; else 1.

    Examples:
        >>> nearest_other(["a", "b", "c"]), nearest_other(["a", "a", "b", "b"]), nearest_other(["a", "a", "a"])
        (1, 2, 1)
    """
    moves = range(1, len(prompts))
    return next((by for by in moves if not any(p == prompts[i - by] for i, p in enumerate(prompts))), 1)


class DrawnRows(Dataset[Mapping[str, Any]]):
    """Prepared rows, taken by :class:`Draw`: with :data:`FILLER`, and :data:`MISMATCHED` where there is a partner."""

    def __init__(self, rows: datasets.Dataset) -> None:
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, draw: Draw) -> Mapping[str, Any]:
        return self.__getitems__([draw])[0]

    def __getitems__(self, draws: Sequence[Draw]) -> list[Mapping[str, Any]]:
        """Return the rows of a batch."""
        rows = self.rows.__getitems__([draw.index for draw in draws])
        partners = [draw.partner for draw in draws if draw.partner is not None]
        others = iter(self.rows.__getitems__(partners)) if partners else iter(())
        return [self._marked(row, draw, others) for row, draw in zip(rows, draws, strict=True)]

    def _marked(self, row: Mapping[str, Any], draw: Draw, others: Iterator[Mapping[str, Any]]) -> Mapping[str, Any]:
        matched = {MISMATCHED: None if draw.partner is None else next(others)["completion_ids"]}
        marked = {**row, **(matched if "completion_ids" in row else {}), FILLER: draw.filler}
        return {**marked, "weight": 0.0} if draw.filler else marked
