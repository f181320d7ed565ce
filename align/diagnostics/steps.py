"""What the optimiser's own step does to measured log-probabilities, to first order: ``<grad logp, theta' - theta>``.

Whatever the optimiser is: momentum, preconditioning, decay, clipping and the other pairs of the batch are all in the
change of the weights.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn
from torch.distributed.tensor import DTensor

from align.diagnostics.products import Piece


class Snapshot:
    """Trainable weights as they are before a step; of sharded ones, this process's shards."""

    def __init__(self, parameters: Iterable[nn.Parameter]) -> None:
        self._before = {id(p): _local(p).detach().clone() for p in parameters}

    def change(self, parameter: nn.Parameter) -> Tensor:
        """Return how far a parameter has moved since, whole; of sharded ones every process must ask."""
        moved = _local(parameter).detach() - self._before[id(parameter)]
        if isinstance(parameter, DTensor):
            sharded = DTensor.from_local(
                moved, parameter.device_mesh, parameter.placements, shape=parameter.shape, stride=parameter.stride()
            )
            whole: Tensor = sharded.full_tensor()
            return whole
        return moved


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """Gradients of measured sequences that wait for the step.

    Attributes:
        pieces: of each parameter, by identity.
        weights: what each log-probability was multiplied with in the backward that the pieces are from.
        which: pairs of the pieces that are wanted.
    """

    pieces: Mapping[int, list[Piece]]
    weights: Float[Tensor, "pairs members"]
    which: Bool[Tensor, " pairs"]

    def along(self, changes: Mapping[int, Tensor]) -> Float[Tensor, "some members"]:
        """Return how far each log-probability moves to first order, in nats, given the change of every parameter."""
        total = torch.zeros_like(self.weights, dtype=torch.float64)
        for key, pieces in self.pieces.items():
            for piece in pieces:
                total += piece.along(changes[key]).to(total)
        return (total / self.weights.double())[self.which]


def _local(parameter: nn.Parameter) -> Tensor:
    return parameter.to_local() if isinstance(parameter, DTensor) else parameter
