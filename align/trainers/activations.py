"""Whether activations are kept for the backward or computed again in it: by what a few rows keep, and what is free."""

import os
from collections.abc import Callable, Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from align.models.adapters import has_adapter
from align.models.machine import memory_left
from align.recipe.speed import Choice

SHARE = 0.9
"""Share of the memory that is free which a step may take."""
BESIDE = 1.25
"""Memory of a backward over what the forward kept: gradients of activations, and what products of matrices work in."""
ADAM = 8
"""Bytes of optimiser state for each number that is trained, where there is none yet."""


class Activations:
    """What becomes of a policy's activations.

    Args:
        choice: ``speed.checkpointing`` of the recipe.
        args: training arguments; told to compute activations again where the choice is ``true``.
        policy: the model, adapters and all.

    Attributes:
        undecided: whether the first batch is to decide.

    Raises:
        ValueError: the choice is ``true``, and the model does not know how.
    """

    def __init__(self, choice: Choice, args: Any, policy: Any) -> None:
        knows = bool(getattr(policy, "supports_gradient_checkpointing", False))
        if choice is True and not knows:
            kind = type(policy).__name__
            raise ValueError(f"speed.checkpointing: true cannot be had: {kind} has no activation checkpointing")
        if choice is True:
            args.activation_checkpointing = True
        self.undecided = choice == "auto" and knows and not checkpoints(args)

    def decide(
        self,
        model: Any,
        forward: Callable[[nn.Module], Any],
        *,
        positions: float,
        optimizer: Any,
        accelerator: Accelerator,
    ) -> str:
        """Measure a forward of a few rows, have activations computed again where they would not fit, and say why.

        Args:
            model: the policy, as it is called.
            forward: of a few rows.
            positions: of the longest batch.
            optimizer: of the policy.
            accelerator: of the trainer; processes decide together.
        """
        self.undecided = False
        policy = accelerator.unwrap_model(model)
        kept = positions * kept_a_position(policy, lambda: forward(policy))
        needed = BESIDE * kept + still_to_come(policy, optimizer)
        free = memory_left(accelerator.device, sharers=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        tight = needed > SHARE * free.available
        again = accelerator.gather(torch.tensor([float(tight)], device=accelerator.device)).max() > 0
        there = f"a step of the longest batch takes about {size(needed)}, {size(kept)} of it activations"
        there += f", of {size(free.available)} of {free.kind}"
        if not again:
            return f"{there}: they are kept for the backward"
        compute_again(policy)
        where = "" if tight else " in another process"
        return f"{there}: they are computed again in the backward, since they might not fit{where}"


def checkpoints(args: Any) -> bool:
    """Whether training arguments have activations computed again, by the new name or the old one."""
    return bool(args.activation_checkpointing or args.gradient_checkpointing)


def kept_a_position(model: Any, forward: Callable[[], Any]) -> float:
    """Return the bytes that a forward keeps for its backward, weights and buffers aside, a position of its input.

    Args:
        model: what is called, without an engine around it.
        forward: calls it; what it returns is let go.
    """
    known = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    kept: dict[int, int] = {}
    positions = 0

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    def count(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal positions
        positions += inputs[0].numel()

    hook = model.get_input_embeddings().register_forward_hook(count)
    try:
        with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
            found = forward()
    finally:
        hook.remove()
    del found  # not before: a storage that was let go could have left its place to another
    return sum(kept.values()) / max(1, positions)


def still_to_come(model: nn.Module, optimizer: Any) -> int:
    """Return the bytes of gradients and optimiser state that are not there yet."""
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.nbytes for p in trained if p.grad is None)
    begun = bool(getattr(optimizer, "state", None))
    return gradients + (0 if begun else ADAM * sum(p.numel() for p in trained))


def longest_over(batch: Mapping[str, Tensor], rows: Any) -> float:
    """Return how many times as long as this batch the longest one of the data can be: at least 1.

    Args:
        batch: of pairs or single completions.
        rows: the data; 1 is returned where they have no column ``length``, in tokens.
    """
    if "length" not in getattr(rows, "column_names", ()):
        return 1.0
    count, real = len(batch["weight"]), batch["attention_mask"].sum(-1)
    first = len(real) - count
    sides = torch.cat([real[:first].view(count, -1), real[first:, None]], 1) if first else real[:, None]
    lengths = torch.as_tensor(rows["length"][:])
    longest = lengths.topk(min(count, len(lengths))).values.double().mean()
    return max(1.0, float(longest / sides.amax(1).double().mean().cpu()))


def compute_again(model: Any) -> None:
    """Let a model compute its activations again in the backward, from the next forward on."""
    if has_adapter(model):
        model.enable_input_require_grads()
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})


def size(count: float | int) -> str:
    """Return bytes for people.

    Examples:
        >>> size(3 * 2**30), size(1.5 * 2**20)
        ('3.0 GiB', '1.5 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
