"""Teachers: a frozen snapshot of a network, or one that follows it as a moving mean. Neither ever has a gradient."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn


class Teacher(nn.Module):
    """A copy of a network that is not trained; as a module of what is trained, it is kept in its checkpoints.

    Args:
        network: what it is a copy of.
        decay: of the moving mean, in [0, 1), or a function from the share of training that is done to it; None is a
            snapshot that stays.
    """

    def __init__(self, network: nn.Module, decay: float | Callable[[float], float] | None = None) -> None:
        super().__init__()
        self.copy = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay

    @torch.no_grad()
    def follow(self, network: nn.Module, progress: float = 0.0) -> None:
        """Move towards the network: ``teacher = decay * teacher + (1 - decay) * network``, buffers taken as they are.

        Raises:
            ValueError: the teacher is a snapshot.
        """
        if self.decay is None:
            raise ValueError("a snapshot follows nothing; give the teacher a decay")
        decay = self.decay(progress) if callable(self.decay) else self.decay
        for mine, theirs in zip(self.copy.parameters(), network.parameters(), strict=True):
            mine.lerp_(theirs.to(mine.dtype), 1 - decay)
        for kept, latest in zip(self.copy.buffers(), network.buffers(), strict=True):
            kept.copy_(latest)

    @torch.no_grad()
    def forward(self, *inputs: Any, **named: Any) -> Any:
        """Return what the copy says."""
        return self.copy(*inputs, **named)

    def train(self, mode: bool = True) -> "Teacher":
        """Stay in evaluation mode."""
        return super().train(False)
