"""Weights that are trained with a model and beside it: not part of any of its layers, but of its forward's graph."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

BESIDE = "beside_the_policy"
"""Set on modules that train with a policy and are no part of it: no log-probability depends on them."""


class _Joined(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, output: Tensor, beside: Tensor) -> Tensor:
        ctx.save_for_backward(beside)
        return output.view_as(output)

    @staticmethod
    def backward(ctx: Any, *slopes: Tensor) -> tuple[Tensor, Tensor]:
        (beside,) = ctx.saved_tensors
        return slopes[0], torch.zeros_like(beside)


def joined(output: Tensor, beside: Tensor) -> Tensor:
    """Return an output as it is, with ``beside`` in its graph: DDP looks from a forward's output for what it used."""
    return _Joined.apply(output, beside)  # type: ignore[no-any-return,no-untyped-call]


def without(state: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """Return a model's weights without those of a module beside it: what is exported."""
    return {key: value for key, value in state.items() if f".{name}." not in f".{key}"}
