"""Metrics of a logging interval: summed on the device, brought together once when they are logged."""

import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Meter:
    """Means over the rows since the last reading, with throughput.

    Nothing leaves the device, and no process talks to another, until :meth:`read`.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._counts: dict[str, Tensor] = {}
        self._positions: list[Tensor] = []
        self._capacity = 0
        self._computed: list[Tensor] = []
        self._since = time.perf_counter()

    def add(
        self,
        metrics: Mapping[str, Tensor],
        attention_mask: Tensor,
        partial: Collection[str] = frozenset(),
        real: Tensor | None = None,
        laid: Tensor | None = None,
    ) -> None:
        """Count a batch.

        Args:
            metrics: of shape (rows,).
            attention_mask: which positions of what is counted hold real tokens.
            partial: metrics that do not apply to every row; where one is NaN, it does not apply to the row. NaN in
                any other metric is a fault, and makes its mean NaN.
            real: of shape (rows,), False for rows that do not count; None where all do.
            laid: which positions of what the model got hold real tokens, where rows were laid out; None where it got
                the rows.
        """
        for name, given in metrics.items():
            values = given.detach().double()
            counted = torch.ones_like(values, dtype=torch.bool) if real is None else real
            counted = counted & ~values.isnan() if name in partial else counted
            total, count = values.where(counted, 0.0).sum(), counted.sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts[name] + count if name in self._counts else count
        got = attention_mask if laid is None else laid
        self._positions.append(attention_mask.sum())
        self._computed.append(got.sum())
        self._capacity += got.numel()

    def note(self, metrics: Mapping[str, Tensor]) -> None:
        """Count numbers that are not of the batch's rows, of any shape; NaN does not apply. Every process must."""
        for name, values in metrics.items():
            counted = ~values.isnan()
            total, count = values.where(counted, 0.0).sum().double(), counted.sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
            self._counts[name] = self._counts[name] + count if name in self._counts else count

    def read(self, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the means over all processes and start again.

        Args:
            gather: from a vector of shape (n,) to those of all processes, one after the other.

        Returns:
            Every metric that applied to a row, ``tokens_per_second`` (real tokens of all processes, shared ones as
            often as there are rows that have them), ``padding_fraction`` of what the model computed, and
            ``shared_fraction``: tokens of the rows that it did not have to compute.
        """
        if not self._sums:
            return {}
        seconds = time.perf_counter() - self._since
        tokens, computed = (torch.stack(found).sum().double() for found in (self._positions, self._computed))
        numbers = [*self._sums.values(), *self._counts.values(), tokens, computed, self._capacity]
        mine = torch.stack([torch.as_tensor(n, dtype=torch.float64, device=tokens.device) for n in numbers])
        *sums, real, done, capacity = gather(mine).view(-1, len(mine)).sum(0).tolist()
        totals, counts = sums[: len(self._sums)], sums[len(self._sums) :]
        means = {name: total / count for name, total, count in zip(self._sums, totals, counts, strict=True) if count}
        self.__init__()  # type: ignore[misc]
        shares = {"padding_fraction": 1 - done / capacity, "shared_fraction": max(0.0, 1 - done / real)}
        return {**means, "tokens_per_second": real / seconds, **shares}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent inside (evaluation, saving) out of the throughput."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - start
