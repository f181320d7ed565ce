"""Whether activations are kept for the backward or computed again in it: by what tokens keep, and what is free."""

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from transformers import TrainingArguments

from align.data.negatives import SAMPLES, longest_samples
from align.models.adapters import has_adapter
from align.models.footprint import optimiser_bytes, shapes_of
from align.models.machine import memory_left
from align.models.skeleton import Counts
from align.models.tiled_head import Tiles
from align.recipe.speed import Choice
from align.trainers.speed import is_out_of_memory

SHARE = 0.9
"""Share of the memory that is free which a step may take."""
BESIDE = 1.25
"""Memory of a backward over what the forward kept: gradients of activations, and what products of matrices work in."""
PROBED = (64, 128, 192)
"""Tokens of the sequences that are measured: what a token keeps is told apart from what a forward keeps anyway, such as
autocast's copies of weights, and from what grows with the square of the length, such as masks."""
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
        self, policy: Any, batch: Callable[[], "LongestBatch"], *, optimizer: Any, accelerator: Accelerator
    ) -> str:
        """Have activations computed again where those of the longest batch would not fit, and say why.

        Args:
            policy: without an engine around it.
            batch: returns the longest batch of the data.
            optimizer: of the policy.
            accelerator: of the trainer; processes decide together.
        """
        self.undecided = False
        note, tight = "", False
        try:  # whatever is raised here, the others must not wait for this process
            note, tight = self._weighed(policy, batch(), optimizer, accelerator)
        except Exception as error:
            tight = is_out_of_memory(error)
            said = " ".join([f"{type(error).__name__}:", *str(error).splitlines()[:1]])
            note = f"activations are not measured ({said})"
        everyones = accelerator.gather(torch.tensor([float(tight)], device=accelerator.device))
        if not everyones.max() > 0:
            return f"{note}: they are kept for the backward"
        where = "" if tight else " in another process"
        try:
            compute_again(policy, self.args)
        except (TypeError, ValueError) as error:
            return f"{note}: they might not fit{where}, and this model cannot compute them again ({error})"
        return f"{note}: they are computed again in the backward, since they might not fit{where}"

    def _weighed(
        self, policy: Any, batch: "LongestBatch", optimizer: Any, accelerator: Accelerator
    ) -> tuple[str, bool]:
        """Return what a step takes and what is free, for people, and whether that is too little."""
        free = memory_left(accelerator.device, sharers=int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
        activations = kept(policy, batch)
        head = kept_by_head(batch.scored, policy.get_output_embeddings().weight.shape[0], batch.tiles)
        plugin = accelerator.state.deepspeed_plugin
        stage, shares = (0, 1) if plugin is None else (plugin.zero_stage, accelerator.num_processes)
        coming = still_to_come(policy, optimizer, self.args, stage=stage, processes=shares)
        needed = BESIDE * activations + head + coming
        there = f"a step of the longest batch takes about {size(needed)}, {size(activations)} of it activations"
        return f"{there}, of {size(free.available)} of {free.kind}", needed > SHARE * free.available


@dataclass(frozen=True, slots=True, kw_only=True)
class LongestBatch:
    """The longest batch that the data can make, about.

    Attributes:
        positions: that the model computes.
        width: of its padded rows, in tokens; 0 where rows are packed.
        scored: tokens whose log-probabilities are asked for.
        tiles: of the head; None where it computes all logits at once.
    """

    positions: float
    width: int
    scored: float
    tiles: Tiles | None

    @classmethod
    def like(
        cls,
        batch: Mapping[str, Tensor],
        rows: Any,
        *,
        positions: int,
        packed: bool,
        tiles: Tiles | None,
    ) -> "LongestBatch":
        """Return what a batch would be, were its rows the longest of the data.

        Args:
            batch: of pairs or single completions.
            rows: the data; without a column ``length``, in tokens, the batch counts as its longest.
            positions: of the batch.
            packed: whether its rows are packed.
            tiles: of the head.
        """
        real, count = batch["attention_mask"].sum(-1), len(batch["weight"])
        first, width = len(real) - count, int(batch["attention_mask"].shape[1])
        sides = torch.cat([real[:first].view(count, -1), real[first:, None]], 1) if first else real[:, None]
        lengths = lengths_of(rows)
        longest = sides.amax(1).double() if lengths is None else lengths.topk(min(count, len(lengths))).values.double()
        longer = max(1.0, float(longest.mean() / sides.amax(1).double().mean().cpu()))
        wider = max(1.0, float(longest.max()) / width)
        return cls(
            positions=positions * (longer if packed else wider),
            width=0 if packed else round(width * wider),
            scored=longer * float(batch["completion_mask"].sum()),
            tiles=tiles,
        )


def let_inputs_have_gradients(policy: Any, args: TrainingArguments) -> None:
    """Under activation checkpointing, nothing under a frozen embedding would have a gradient else."""
    if has_adapter(policy) and checkpoints(args):
        policy.enable_input_require_grads()


def checkpoints(args: Any) -> bool:
    """Whether training arguments have activations computed again, by the new name or the old one."""
    return bool(args.activation_checkpointing or args.gradient_checkpointing)


def kept(policy: Any, batch: LongestBatch) -> float:
    """Return the bytes that a model without its head keeps for the backward of a batch.

    Of three lengths, what is kept anyway, what grows with a row's length and what grows with its square are told apart.
    """
    inner = policy.get_base_model() if has_adapter(policy) else policy
    body = inner.base_model
    limit = getattr(inner.config.get_text_config(), "max_position_embeddings", None) or PROBED[-1]
    step = max(2, min(PROBED[0], limit // 3))
    found = [kept_bytes(body, n * step, padded=batch.width > 0) for n in (1, 2, 3)]
    square = max(0.0, (found[2] - 2 * found[1] + found[0]) / (2 * step**2))
    each = max(0.0, (found[2] - found[0]) / (2 * step) - 4 * step * square)
    anyway = max(0.0, found[2] - 3 * step * each - (3 * step) ** 2 * square)
    return anyway + batch.positions * (each + square * batch.width)


def kept_bytes(body: Any, length: int, *, padded: bool = False) -> int:
    """Return the bytes that a sequence of so many tokens keeps for its backward, weights and buffers aside.

    Args:
        body: a model without its head.
        length: in tokens.
        padded: whether the model is told that the last of them is padding.
    """
    known = {t.untyped_storage().data_ptr() for t in (*body.parameters(), *body.buffers())}
    found: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in known:
            found[storage.data_ptr()] = storage.nbytes()
        return tensor

    embedding = body.get_input_embeddings()
    ids = torch.arange(length, device=embedding.weight.device)[None] % embedding.weight.shape[0]
    mask = torch.ones_like(ids)
    mask[:, -1] = 0
    masked = {"attention_mask": mask} if padded else {}
    with torch.enable_grad(), saved_tensors_hooks(keep, lambda tensor: tensor):
        states = body(input_ids=ids, use_cache=False, **masked)
    del states  # not before: a storage that was let go could have left its place to another
    return sum(found.values())


def kept_by_head(scored: float, vocabulary: int, tiles: Tiles | None) -> float:
    """Return the bytes that the log-probabilities of so many tokens take, in float32."""
    if tiles is None:
        return 4.0 * TABLES * scored * vocabulary
    tile = min(scored, tiles.tokens) * min(vocabulary, tiles.vocabulary)
    return 4.0 * (min(scored * vocabulary, tiles.kept) + TABLES * tile)


def still_to_come(model: nn.Module, optimizer: Any, args: Any, *, stage: int = 0, processes: int = 1) -> float:
    """Return the bytes of gradients and optimiser state that are not there yet.

    Args:
        model: whose weights are trained.
        optimizer: of the model.
        args: training arguments, which name the optimiser.
        stage: of DeepSpeed's ZeRO, whose state is of float32 numbers; 0 without.
        processes: that ZeRO divides state among, and gradients from its second stage on.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    gradients = sum(p.nbytes for p in trained if p.grad is None) / (processes if stage > 1 else 1)
    if getattr(optimizer, "state", None):
        return gradients
    numbers = sum(p.numel() for p in trained)
    volume = 4 * numbers if stage else sum(p.nbytes for p in trained)
    counts = Counts(parameters=numbers, trainable=numbers, weight_bytes=volume, trainable_bytes=volume)
    state = optimiser_bytes(str(getattr(args.optim, "value", args.optim)), counts, shapes_of(model)) or 0
    return gradients + state / processes


def lengths_of(rows: Any) -> Tensor | None:
    """Return the tokens of each row's longest sequence; None where the data do not say."""
    names = getattr(rows, "column_names", ())
    if "length" not in names:
        return None
    found = torch.as_tensor(rows["length"][:])
    return torch.maximum(found, longest_samples(rows)) if SAMPLES in names else found


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
