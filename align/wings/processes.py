"""Several processes that train as one: what is drawn for the rows of all of them, and batch norm over all rows."""

from collections.abc import Callable
from typing import Any

import torch
import torch.distributed
from torch import Tensor, nn

from align.trainers.base import gather_with_gradient


def processes() -> int:
    """Return how many processes train together."""
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1


def own(rows: int) -> slice:
    """Return where this process's rows are among those of all, each of which has equally many."""
    rank = torch.distributed.get_rank() if processes() > 1 else 0
    return slice(rank * rows, (rank + 1) * rows)


def drawn(draw: Callable[[int], Tensor], rows: int) -> Tensor:
    """Return what is drawn for this process's rows of a training batch.

    Every process draws for the rows of all, from generators that are alike, and takes its own: two processes see what
    one with the whole batch would.

    Args:
        draw: from a number of rows to a tensor of as many, by torch's own generator.
        rows: of this process.
    """
    return draw(rows * processes())[own(rows)]


class _OverAll:
    """Batch norm whose mean and variance in training are those of all processes' rows, with gradient.

    ``torch.nn.SyncBatchNorm`` does the same on GPUs alone. Every process must call it, with equally many rows. Means
    are taken in the weights' number type, also of what autocast makes coarser.
    """

    def forward(self: Any, inputs: Tensor) -> Tensor:
        if not self.training or processes() == 1:
            return super().forward(inputs)  # type: ignore[misc,no-any-return]
        self._check_input_dim(inputs)
        axes = [axis for axis in range(inputs.ndim) if axis != 1]
        count = processes() * inputs.numel() / inputs.shape[1]

        def over_all(values: Tensor) -> Tensor:
            return gather_with_gradient(values.sum(axes)[None]).sum(0) / count

        shape = [-1 if axis == 1 else 1 for axis in range(inputs.ndim)]
        exact = inputs.to(torch.promote_types(inputs.dtype, self.weight.dtype))
        mean = over_all(exact)
        apart = exact - mean.view(shape)
        variance = over_all(apart**2)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)
        scale = self.weight * (variance + self.eps).rsqrt()
        found: Tensor = apart * scale.view(shape) + self.bias.view(shape)
        return found.to(inputs.dtype)


class BatchNorm1d(_OverAll, nn.BatchNorm1d):
    """``torch.nn.BatchNorm1d`` over the rows of all processes."""


class BatchNorm2d(_OverAll, nn.BatchNorm2d):
    """``torch.nn.BatchNorm2d`` over the rows of all processes."""
