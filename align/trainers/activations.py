"""Whether activations are kept for the backward or computed again in it: by what tokens keep, and what is free."""

import os
from collections.abc import Mapping
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from align.models.adapters import has_adapter
from align.models.footprint import optimiser_bytes, shapes_of
from align.models.machine import memory_left
from align.models.skeleton import Counts
from align.models.tiled_head import Tiles
from align.recipe.speed import Choice

SHARE = 0.9
"""Share of the memory that is free which a step may take."""
BESIDE = 1.25
"""Memory of a backward over what the forward kept: gradients of activations, and what products of matrices work in."""
PROBED = (64, 192)
"""Tokens of the two sequences that are measured: what a token keeps is told apart from what a forward keeps anyway,
such as autocast's copies of weights."""
TABLES = 3
"""How many times logits are there, in float32, where they are not tiled."""


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
        self.args = args
        self.undecided = choice == "auto" and knows and not checkpoints(args)

    def decide(
        self,
        policy: Any,
        *,
        positions: float,
        scored: float,
        tiles: Tiles | None,
        optimizer: Any,
        accelerator: Accelerator,
    ) -> str:
        """Have activations computed again where those of the longest batch would not fit, and say why.

        Args:
            policy: without an engine around it.
            positions: of the longest batch.
            scored: tokens of it whose log-probabilities are asked for.
            tiles: of the head; None where it computes all logits at once.
            optimizer: of the policy.
            accelerator: of the trainer; processes decide together.
        """
        self.undecided = False
        problem, activations, head = "", 0.0, 0.0
        try:
            activations = kept(policy, positions)
            head = kept_by_head(scored, policy.get_output_embeddings().weight.shape[0], tiles)
        except Exception as error:  # a model's own code may do anything; others must not wait for this process
            problem = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
        processes = accelerator.num_processes if accelerator.distributed_type == "DEEPSPEED" else 1
        needed = BESIDE * activations + head + still_to_come(policy, optimizer, self.args, processes)
        free = memory_left(accelerator.device, sharers=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        tight = not problem and needed > SHARE * free.available
        again = accelerator.gather(torch.tensor([float(tight)], device=accelerator.device)).max() > 0
        there = f"a step of the longest batch takes about {size(needed)}, {size(activations)} of it activations"
        there = f"{there}, of {size(free.available)} of {free.kind}" if not problem else f"not measured ({problem})"
        if not again:
            return f"{there}: they are kept for the backward"
        compute_again(policy, self.args)
        where = "" if tight else " in another process"
        return f"{there}: they are computed again in the backward, since they might not fit{where}"


def checkpoints(args: Any) -> bool:
    """Whether training arguments have activations computed again, by the new name or the old one."""
    return bool(args.activation_checkpointing or args.gradient_checkpointing)


def kept(policy: Any, positions: float) -> float:
    """Return the bytes that a model without its head keeps for the backward of so many positions."""
    inner = policy.get_base_model() if has_adapter(policy) else policy
    body = inner.base_model
    limit = getattr(inner.config.get_text_config(), "max_position_embeddings", None) or PROBED[1]
    long = max(2, min(PROBED[1], limit))
    short = min(PROBED[0], long // 2)
    of_short, of_long = (kept_bytes(body, length) for length in (short, long))
    each = max(0.0, (of_long - of_short) / (long - short))
    return max(0.0, of_long - long * each) + each * positions


def kept_bytes(body: Any, length: int) -> int:
    """Return the bytes that a sequence of so many tokens keeps for its backward, weights and buffers aside."""
    known = {t.untyped_storage().data_ptr() for t in (*body.parameters(), *body.buffers())}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    device = next(body.parameters()).device
    ids = torch.ones(1, length, dtype=torch.long, device=device)
    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        states = body(input_ids=ids, use_cache=False)
    del states  # not before: a storage that was let go could have left its place to another
    return sum(found.values())


def kept_by_head(scored: float, vocabulary: int, tiles: Tiles | None) -> float:
    """Return the bytes that the log-probabilities of so many tokens take, in float32."""
    if tiles is None:
        return 4.0 * TABLES * scored * vocabulary
    tile = min(scored, tiles.tokens) * min(vocabulary, tiles.vocabulary)
    return 4.0 * (min(scored * vocabulary, tiles.kept) + TABLES * tile)


def still_to_come(model: nn.Module, optimizer: Any, args: Any, processes: int = 1) -> float:
    """Return the bytes of gradients and optimiser state that are not there yet.

    Args:
        model: whose weights are trained.
        optimizer: of the model.
        args: training arguments, which name the optimiser.
        processes: that state is divided among.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.nbytes for p in trained if p.grad is None)
    if getattr(optimizer, "state", None):
        return float(gradients)
    numbers, volume = sum(p.numel() for p in trained), sum(p.nbytes for p in trained)
    counts = Counts(parameters=numbers, trainable=numbers, weight_bytes=volume, trainable_bytes=volume)
    state = optimiser_bytes(str(getattr(args.optim, "value", args.optim)), counts, shapes_of(model)) or 0
    return gradients + state / processes


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


def compute_again(model: Any, args: Any) -> None:
    """Let a model compute its activations again in the backward, from the next forward on, as ``args`` say how."""
    if has_adapter(model):
        model.enable_input_require_grads()
    said: dict[str, Any] = dict(args.activation_checkpointing_kwargs or args.gradient_checkpointing_kwargs or {})
    layers = {name: said.pop(name) for name in ("every_n_layers", "offload") if name in said}
    model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False, **said}, **layers)


def size(count: float | int) -> str:
    """Return bytes for people.

    Examples:
        >>> size(3 * 2**30), size(1.5 * 2**20)
        ('3.0 GiB', '1.5 MiB')
    """
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.1f} MiB"
