"""Measuring outside the training backward: a forward and a backward of its own, through activations alone.

No gradient of a weight is made and none is touched, so that it can be done within a training step, under every engine.
:func:`brute_force` is the other way: it builds every sequence's whole gradient.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from align.diagnostics.capture import Recorder
from align.diagnostics.gradients import PairGradients
from align.diagnostics.places import Sequences
from align.models.logprobs import completion_logps
from align.objectives.logps import TokenLogps


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Sequences to be measured, padded on the right.

    Attributes:
        input_ids: prompt and completion.
        attention_mask: 1 on tokens.
        completion_mask: True on tokens of the completion.
        groups: numbers of the rows whose inner products are taken: chosen and rejected of each pair.
    """

    input_ids: Int[Tensor, "rows time"]
    attention_mask: Int[Tensor, "rows time"]
    completion_mask: Bool[Tensor, "rows time"]
    groups: Int[Tensor, "groups members"]

    @property
    def sequences(self) -> Sequences:
        """Where their positions stand."""
        predicted = F.pad(self.completion_mask[:, 1:], (0, 1))
        return Sequences(self.attention_mask.bool(), predicted, self.groups, self.input_ids)

    @property
    def trimmed(self) -> "Rows":
        """Without columns that hold no token of any row."""
        width = int(self.attention_mask.sum(-1).max())
        return Rows(
            input_ids=self.input_ids[:, :width],
            attention_mask=self.attention_mask[:, :width],
            completion_mask=self.completion_mask[:, :width],
            groups=self.groups,
        )

    def group(self, number: int) -> "Rows":
        """Return one group alone, without the padding that others need."""
        rows = self.groups[number]
        width = int(self.attention_mask[rows].sum(-1).max())
        own = torch.arange(len(rows), device=rows.device)[None]
        parts = [tensor[rows, :width] for tensor in (self.input_ids, self.attention_mask, self.completion_mask)]
        return Rows(input_ids=parts[0], attention_mask=parts[1], completion_mask=parts[2], groups=own)


def rows_of_pairs(batch: Mapping[str, Tensor], pairs: Sequence[int] | Tensor) -> Rows:
    """Return both sides of some pairs of a batch of :class:`~align.data.collate.PairBatch`."""
    total = len(batch["input_ids"]) // 2
    chosen = torch.as_tensor(pairs, device=batch["input_ids"].device)
    rows = torch.cat([chosen, chosen + total])
    own = torch.arange(len(rows), device=rows.device).view(2, -1).T
    ids, real, completion = (batch[name][rows] for name in ("input_ids", "attention_mask", "completion_mask"))
    return Rows(input_ids=ids, attention_mask=real, completion_mask=completion, groups=own).trimmed


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """What an extra pass found.

    Attributes:
        gradients: of the (weighted) log-probabilities.
        tokens: log-probabilities of the completions' tokens.
        recorder: with the gradients themselves, where they were to be kept.
    """

    gradients: PairGradients
    tokens: TokenLogps
    recorder: Recorder


def measure(
    model: nn.Module,
    head: nn.Module,
    rows: Rows,
    *,
    weights: Float[Tensor, "rows tokens"] | None = None,
    keep: bool = False,
    within: nn.Module | None = None,
) -> Measured:
    """Return the gradients of summed log-probabilities of sequences, and the log-probabilities.

    One forward and one backward of all rows at once, whatever the number of groups and members.

    Args:
        model: not wrapped in anything that acts on a forward (DDP); its mode and dropout are left as they are.
        head: its output embedding.
        rows: the sequences.
        weights: what the log-probability of each completion token counts; None for 1.
        keep: whether gradients are kept in compact form.
        within: the part of the model by whose weights gradients are taken; None for all of it.
    """
    recorder = Recorder(model, keep=keep, within=within)
    with same_draws_after(model), activations_alone(model) as leaves, recorded(recorder), torch.enable_grad():
        with recorder.watching(rows.sequences):
            tokens = completion_logps(
                model,
                head,
                input_ids=rows.input_ids,
                attention_mask=rows.attention_mask,
                completion_mask=rows.completion_mask,
            )
        logp = tokens.logp if weights is None else tokens.logp * weights.to(tokens.logp.dtype)
        torch.autograd.grad(logp.masked_fill(~tokens.mask, 0.0).sum(), leaves, allow_unused=True)
    found = TokenLogps(logp=tokens.logp.detach(), mask=tokens.mask)
    return Measured(gradients=recorder.finish(), tokens=found, recorder=recorder)


def brute_force(model: nn.Module, head: nn.Module, rows: Rows) -> PairGradients:
    """Return the same as :func:`measure` from whole gradients: a forward and a backward for every sequence.

    Raises:
        ValueError: if no process holds whole weights.
    """
    found: dict[str, list[Tensor]] = {}
    for number in range(len(rows.groups)):
        group = rows.group(number)
        for name, products in _of_group(model, head, group).items():
            found.setdefault(name, []).append(products)
    return PairGradients(by_parameter={name: torch.stack(parts) for name, parts in found.items()}, coverage=1.0)


def _of_group(model: nn.Module, head: nn.Module, rows: Rows) -> dict[str, Tensor]:
    parameters = {name: value for name, value in model.named_parameters() if value.requires_grad}
    if any(hasattr(value, "ds_id") or hasattr(value, "full_tensor") for value in parameters.values()):
        raise ValueError("whole gradients cannot be built where weights are sharded: verify under one process or ddp")
    members = []
    for row in range(len(rows.input_ids)):
        width = int(rows.attention_mask[row].sum())
        part = slice(row, row + 1), slice(0, width)
        with same_draws_after(model), torch.enable_grad(), without_checkpointing(model):
            logps = completion_logps(
                model,
                head,
                input_ids=rows.input_ids[part],
                attention_mask=rows.attention_mask[part],
                completion_mask=rows.completion_mask[part],
            ).summed()
            gradients = torch.autograd.grad(logps.logps.sum(), list(parameters.values()), allow_unused=True)
        members.append(gradients)
    return {
        name: torch.stack([torch.stack([_dot(one, other) for other in each]) for one in each])
        for name, each in zip(parameters, zip(*members, strict=True), strict=True)
    }


def _dot(one: Tensor | None, other: Tensor | None) -> Tensor:
    if one is None or other is None:
        return torch.zeros((), dtype=torch.float64)
    exact = torch.float64 if one.numel() < 2**22 or one.dtype == torch.float64 else torch.float32
    return (one.to(exact) * other.to(exact)).sum(dtype=torch.float64)


def largest_error(found: PairGradients, exact: PairGradients) -> float:
    """Return the largest difference of an inner product, relative to the product of the two norms."""
    true = exact.products
    norms = true.diagonal(dim1=1, dim2=2).clamp(min=0).sqrt()
    size = norms[:, :, None] * norms[:, None, :]
    return float(((found.products.to(true) - true).abs() / size.clamp(min=torch.finfo(true.dtype).tiny)).max())


@contextmanager
def same_draws_after(model: nn.Module) -> Iterator[None]:
    """Leave the state of random numbers as it was: what is dropped in training does not depend on what is measured."""
    device = next(model.parameters()).device
    devices, kind = ([], "cuda") if device.type == "cpu" else ([device], device.type)
    with torch.random.fork_rng(devices, device_type=kind):
        yield


@contextmanager
def without_dropout(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode inside."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


def drops(model: nn.Module) -> bool:
    """Whether a model in training drops anything at random."""
    return any(isinstance(module, nn.Dropout) and module.p > 0 and module.training for module in model.modules())


@contextmanager
def recorded(recorder: Recorder) -> Iterator[Recorder]:
    """Have a recorder on its model inside."""
    recorder.attach()
    try:
        yield recorder
    finally:
        recorder.detach()


@contextmanager
def activations_alone(model: nn.Module) -> Iterator[list[Tensor]]:
    """Cut the graph at the outputs of embeddings inside, and collect them: a backward to them is of no weight.

    Activation checkpointing is off inside: its reentrant kind cannot be differentiated by chosen tensors.
    """
    leaves: list[Tensor] = []

    def cut(module: nn.Module, args: Any, output: Any) -> Any:
        if not torch.is_grad_enabled() or not isinstance(output, Tensor):
            return None
        leaf = output.detach().requires_grad_()
        leaves.append(leaf)
        return leaf.clone()

    with ExitStack() as stack:
        stack.enter_context(without_checkpointing(model))
        for module in model.modules():
            if isinstance(module, nn.Embedding):
                stack.callback(module.register_forward_hook(cut).remove)
        yield leaves


@contextmanager
def without_checkpointing(model: nn.Module) -> Iterator[None]:
    """Switch activation checkpointing off inside."""
    on = [module for module in model.modules() if getattr(module, "gradient_checkpointing", False) is True]
    for module in on:
        module.gradient_checkpointing = False  # type: ignore[assignment]
    try:
        yield
    finally:
        for module in on:
            module.gradient_checkpointing = True  # type: ignore[assignment]
