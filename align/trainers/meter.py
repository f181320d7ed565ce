"""Metrics of a logging interval: summed on the device, brought together once when they are logged."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor


class Meter:
    """Means over the rows since the last reading, with throughput.

    Nothing leaves the device, and no process talks to another, until :meth:`read`.
    """

    def __init__(self) -> None:
        self._sums: dict[str, Tensor] = {}
        self._rows = 0
        self._positions: list[Tensor] = []
        self._capacity = 0
        self._since = time.perf_counter()

    def add(self, metrics: Mapping[str, Tensor], attention_mask: Tensor) -> None:
        """Count a batch: metrics of shape (rows,), and which of its positions hold real tokens."""
        for name, values in metrics.items():
            total = values.detach().double().sum()
            self._sums[name] = self._sums[name] + total if name in self._sums else total
        self._rows += len(next(iter(metrics.values())))
        self._positions.append(attention_mask.sum())
        self._capacity += attention_mask.numel()

    def read(self, gather: Callable[[Tensor], Tensor]) -> dict[str, float]:
        """Return the means over all processes and start again.

        Args:
            gather: from a vector of shape (n,) to those of all processes, one after the other.

        Returns:
            Every metric, ``tokens_per_second`` (real tokens of all processes) and ``padding_fraction``.
        """
        if not self._rows:
            return {}
        seconds = time.perf_counter() - self._since
        tokens = torch.stack(self._positions).sum().double()
        counts = torch.tensor([self._rows, self._capacity], dtype=torch.float64, device=tokens.device)
        mine = torch.cat([torch.stack(list(self._sums.values())), tokens[None], counts])
        sums = gather(mine).view(-1, len(mine)).sum(0).tolist()
        *totals, real, rows, capacity = sums
        means = {name: total / rows for name, total in zip(self._sums, totals, strict=True)}
        self.__init__()  # type: ignore[misc]
        return {**means, "tokens_per_second": real / seconds, "padding_fraction": 1 - real / capacity}

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Leave the time spent inside (evaluation, saving) out of the throughput."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self._since += time.perf_counter() - start
