"""Batches that are put together on purpose: neighbours beside each other, or so many rows of each class."""

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor
from torch.utils.data import Sampler

from align.wings.extras import needed


def nearest(closeness: Tensor, reach: int) -> Tensor:
    """Return the ``reach`` closest rows of each row, closest first and without the row itself, of shape (rows, reach).

    Args:
        closeness: larger is closer, of shape (rows, rows).
        reach: how many, less than there are rows.

    Raises:
        ValueError: there are not as many others.
    """
    if not 0 <= reach < len(closeness):
        raise ValueError(f"reach must lie in 0 ... {len(closeness) - 1}, got {reach}")
    others = closeness.clone().fill_diagonal_(float("-inf"))
    return others.topk(reach, dim=1).indices


class NeighbourBatches(Sampler[int]):
    """Draws batches of a row and its neighbours; rows without neighbours yet are drawn at random.

    Each batch begins with the next row of a shuffled list. To it come half of ``select`` from its nearest neighbours,
    and half by chance from the other ones of the ``reach`` nearest; then the next row of the list, until the batch is
    full. No row comes twice in an epoch, and what does not fill a batch is left out.

    Args:
        rows: how many there are.
        batch: rows of a batch, on all processes.
        select: neighbours that each seed brings.
        reach: nearest neighbours they are chosen from.
        neighbours: called before each epoch with its number: the nearest rows of each row, nearest first and without
            the row itself, of shape (rows, at least ``reach``); None keeps those of before, and before the first
            there are none.
        seed: of everything that is drawn.
    """

    def __init__(
        self,
        rows: int,
        *,
        batch: int,
        select: int,
        reach: int,
        neighbours: Callable[[int], Tensor | None],
        seed: int = 0,
    ) -> None:
        if not 0 <= select <= reach < rows:
            raise ValueError(f"need 0 <= select <= reach < rows, got select={select}, reach={reach}, rows={rows}")
        if not 0 < batch <= rows:
            raise ValueError(f"a batch of {batch} rows cannot be drawn from {rows} rows")
        self.rows, self.batch, self.select, self.reach = rows, batch, select, reach
        self._find, self.seed, self.epoch = neighbours, seed, 0
        self._found: Tensor | None = None
        self._found_for = -1

    def __len__(self) -> int:
        """Return the most rows of an epoch."""
        return self.rows // self.batch * self.batch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def state_dict(self) -> dict[str, Any]:
        """Return the neighbours of the epoch at hand, so that a run that goes on within it draws the same rows."""
        return {"neighbours": self._found, "epoch": self._found_for}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on with such neighbours."""
        self._found, self._found_for = state["neighbours"], state["epoch"]

    def __iter__(self) -> Iterator[int]:
        if self._found_for != self.epoch:
            found = self._find(self.epoch)
            self._found, self._found_for = (self._found if found is None else _of_first(found)), self.epoch
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        return iter(self.composed(generator))

    def composed(self, generator: torch.Generator, neighbours: Tensor | None = None) -> list[int]:
        """Return the rows of an epoch, batch after batch, with neighbours at hand where no others are given."""
        order = torch.randperm(self.rows, generator=generator).tolist()
        found = self._found if neighbours is None else neighbours
        if found is None:
            return order[: len(self)]
        table = found[:, : self.reach].tolist()
        used = [False] * self.rows
        composed: list[int] = []
        seeds = iter(order)
        while len(composed) + self.batch <= len(self):
            batch: list[int] = []
            while len(batch) < self.batch:
                seed = next((row for row in seeds if not used[row]), None)
                if seed is None:
                    return composed
                for row in [seed, *self._drawn(table[seed], generator)]:
                    if not used[row] and len(batch) < self.batch:
                        used[row] = True
                        batch.append(row)
            composed += batch
        return composed

    def _drawn(self, nearest: list[int], generator: torch.Generator) -> list[int]:
        sure = self.select - self.select // 2
        far = nearest[sure:]
        chance = torch.randperm(len(far), generator=generator)[: self.select // 2].tolist()
        return nearest[:sure] + [far[place] for place in chance]


class ClassBatches(Sampler[int]):
    """Draws batches of equally many rows of some classes each: ``pytorch-metric-learning``'s ``MPerClassSampler``.

    The classes of a batch are drawn anew for each, and the rows of a class for each batch apart: a row may come again
    in an epoch, or not at all. What is drawn follows from seed and epoch alone, so that a run that goes on draws as
    before.

    Args:
        labels: of the rows, of shape (n,).
        each: rows of a class in a batch; a class with fewer repeats some.
        batch: rows of a batch, on all processes.
        seed: of everything that is drawn.
    """

    def __init__(self, labels: Tensor, *, each: int, batch: int, seed: int = 0) -> None:
        classes = len(set(labels.tolist()))
        if each < 1 or batch % each or not each <= batch <= each * classes:
            raise ValueError(
                f"a batch of {batch} rows needs a multiple of each={each}, of at most {classes} classes: "
                f"{each} ... {each * classes} rows"
            )
        if batch > len(labels):
            raise ValueError(f"a batch of {batch} rows cannot be drawn from {len(labels)} rows")
        self.labels, self.each, self.batch, self.seed, self.epoch = labels, each, batch, seed, 0

    def __len__(self) -> int:
        """Return the rows of an epoch: as many whole batches as there are rows for."""
        return len(self.labels) // self.batch * self.batch

    def set_epoch(self, epoch: int) -> None:
        """Say which epoch comes next."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[int]:
        sampler = needed("pytorch_metric_learning.samplers").MPerClassSampler
        draws = sampler(self.labels.cpu(), self.each, self.batch, length_before_new_iter=len(self))
        before = np.random.get_state()  # the sampler draws from numpy's own generator, which others do too
        np.random.seed((self.seed * 1_000_003 + self.epoch) % 2**32)
        try:
            drawn = [int(row) for row in draws]
        finally:
            np.random.set_state(before)
        return iter(drawn)


def _of_first(found: Tensor) -> Tensor:
    """Return what the first process found: others, whose numbers may differ in the last digit, would draw otherwise."""
    if torch.distributed.is_available() and torch.distributed.is_initialized():
        held = [found]
        torch.distributed.broadcast_object_list(held, src=0)
        return held[0]
    return found
