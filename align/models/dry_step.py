"""One training step on tensors that have shapes and no numbers: what it holds in memory, computes and moves.

Every operation of forward, reference forward and backward is seen as torch dispatches it, on fake CPU tensors
(``torch._subclasses.FakeTensorMode``): nothing is allocated, and nothing about an architecture has to be known. LoRA,
gradient checkpointing, autocast and logits at completion positions alone count as they really happen.
"""

import weakref
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses import FakeTensorMode
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import flop_registry

from align.models.adapters import has_adapter
from align.models.logprobs import output_head
from align.models.skeleton import Counts

SMALL_BLOCK = 32 * 2**20
"""Bytes from which glibc gives a freed block back at once (its largest M_MMAP_THRESHOLD); smaller ones it may keep."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """What some operations amount to.

    Attributes:
        flops: floating-point operations of matrix products and attention, a multiplication and an addition as two.
        traffic: bytes that all other operations read and write.
    """

    flops: float = 0.0
    traffic: float = 0.0

    def __add__(self, other: "Work") -> "Work":
        return Work(flops=self.flops + other.flops, traffic=self.traffic + other.traffic)

    def __sub__(self, other: "Work") -> "Work":
        return Work(flops=self.flops - other.flops, traffic=self.traffic - other.traffic)

    def __mul__(self, factor: float) -> "Work":
        return Work(flops=self.flops * factor, traffic=self.traffic * factor)


@dataclass(frozen=True, slots=True, kw_only=True)
class DryStep:
    """Memory and work of one batch; bytes come on top of weights, reference copy and optimiser.

    Attributes:
        kept: bytes alive after the policy's forward: what the backward will need.
        peak: largest number of bytes alive at any time, gradients included.
        working: the same without finished gradients: all there is where each is sharded or added up as it is finished.
        gradients: bytes of gradients at the end.
        small: bytes of all blocks below :data:`SMALL_BLOCK` that the policy's forward takes, freed ones included.
        forward: work of the policy's forward.
        reference: work of the reference's forward.
        backward: work of the backward.
        mismatched: work of both forwards of mismatched rows, which are without gradient.
    """

    kept: int
    peak: int
    working: int
    gradients: int
    small: int
    forward: Work
    reference: Work
    backward: Work
    mismatched: Work = Work()

    @property
    def forwards(self) -> Work:
        """Work of all forwards, as an evaluation does them."""
        return self.forward + self.reference + self.mismatched

    @property
    def work(self) -> Work:
        """Work of all parts."""
        return self.forwards + self.backward

    def beside(self, other: "DryStep") -> "DryStep":
        """Return this step with rows of another forward of the policy beside it, before one backward of both."""
        return replace(
            self,
            kept=self.kept + other.kept,
            peak=max(self.peak, other.peak) + min(self.kept, other.kept),
            working=max(self.working, other.working) + min(self.kept, other.kept),
            small=self.small + other.small,
            forward=self.forward + other.forward,
            backward=self.backward + other.backward,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchShape:
    """Shape of what a forward sees of a batch.

    Attributes:
        sequences: rows that are computed: two a pair, one where a single side is read, one a single completion.
        width: tokens of the longest row, to which all are padded.
        completion_tokens: completion tokens of all rows, whose logits are computed.
    """

    sequences: int
    width: int
    completion_tokens: int


def dry_step(
    model: Any,
    shape: BatchShape,
    *,
    reference: str = "none",
    other: Any = None,
    train: bool = True,
    checkpointing: bool = False,
    accumulate: bool = False,
    autocast: torch.dtype | None = None,
    mismatched: BatchShape | None = None,
) -> DryStep:
    """Run one step of a model on the meta device without numbers.

    Args:
        model: from :func:`~align.models.skeleton.skeleton`; its parameters are replaced by fake ones.
        shape: of the batch.
        reference: ``none``, ``adapter_off``, or anything else for a second model.
        other: the second model's skeleton; absent, it is one like the policy.
        train: whether to keep activations and run the backward; else only both forwards, as an evaluation does.
        checkpointing: whether the backward computes activations again instead of keeping them.
        accumulate: whether gradients of an earlier batch are there already, to which this one's are added.
        autocast: number type of autocast, None for none.
        mismatched: shape of rows that both models see before, without gradient; None for none.

    Raises:
        RuntimeError: if the model's path through its layers depends on numbers, so that it cannot be followed.
    """
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        for each in (model, other):
            _without_numbers(each)
        model.train(train)
        if checkpointing and train:
            stack.enter_context(_checkpointing(model))
        step = _Step(model, shape, autocast)
        watched = stack.enter_context(_Watch(own=[*_tensors(model), *_tensors(other)]))
        watched.set_gradients_aside(model)
        if mismatched is not None:
            _mismatched(_Step(model, mismatched, autocast), model, reference, other)
        before_small, aside = watched.small, watched.work
        with nullcontext() if train else torch.no_grad():
            logp = step.forward(model)
        kept, small, forward = watched.alive, watched.small - before_small, watched.work - aside
        _reference(step, model, reference, other)
        compared = watched.work
        if train:
            (-F.logsigmoid(logp)).sum().backward()  # type: ignore[no-untyped-call]
        gradients = _gradient_bytes(model)
        return DryStep(
            kept=kept,
            peak=gradients + watched.working if accumulate else watched.peak,
            working=watched.working,
            gradients=gradients,
            small=small,
            forward=forward,
            reference=compared - aside - forward,
            backward=watched.work - compared,
            mismatched=aside,
        )


def rough_step(
    config: Any,
    counts: Counts,
    shape: BatchShape,
    *,
    referred: bool,
    train: bool = True,
    checkpointing: bool = False,
    mismatched: BatchShape | None = None,
) -> DryStep:
    """Estimate a step from a config's sizes, for models whose path through their layers depends on numbers.

    Activations in float32: a layer keeps 12 vectors of the hidden size and 4 of the inner size for each position, with
    checkpointing one vector and a layer's worth at a time; logits are there three times. Every parameter multiplies
    every position: of a mixture of experts that is more than happens.
    """
    text = config.get_text_config()
    positions = shape.sequences * shape.width
    hidden, layers = int(text.hidden_size), int(text.num_hidden_layers)
    a_layer = 4 * positions * (12 * hidden + 4 * int(getattr(text, "intermediate_size", None) or 4 * hidden))
    kept = 4 * positions * hidden * layers + a_layer if checkpointing else a_layer * layers
    logits = 4 * shape.completion_tokens * int(text.vocab_size)
    forward = Work(flops=2.0 * counts.parameters * positions, traffic=3.0 * a_layer * layers)
    share = 1 + counts.trainable / counts.parameters + (1 if checkpointing else 0)
    return DryStep(
        kept=kept + logits if train else 0,
        peak=(kept + counts.trainable_bytes if train else a_layer) + 3 * logits,
        working=(kept if train else a_layer) + 3 * logits,
        gradients=counts.trainable_bytes if train else 0,
        small=2 * a_layer * layers if 4 * positions * hidden < SMALL_BLOCK else 0,
        forward=forward,
        reference=forward if referred else Work(),
        backward=forward * share if train else Work(),
        mismatched=Work()
        if mismatched is None
        else forward * (2 * mismatched.sequences * mismatched.width / positions),
    )


class _Step:
    """A batch without numbers, and a forward that computes logits of as many positions as completions have."""

    def __init__(self, model: Any, shape: BatchShape, autocast: torch.dtype | None) -> None:
        self.ids = torch.zeros(shape.sequences, shape.width, dtype=torch.long)
        self.mask = torch.ones_like(self.ids)
        self.positions = max(1, min(shape.completion_tokens, shape.sequences * (shape.width - 1)))
        self.targets = torch.zeros(self.positions, dtype=torch.long)
        self.autocast = autocast

    def forward(self, model: Any) -> Tensor:
        """Return the log-probabilities; which positions are taken does not matter to what it costs."""

        def select(module: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
            hidden = arguments[0].flatten(0, 1)
            # Copied, as picking scattered positions does.
            return (hidden[: self.positions].clone().unsqueeze(0), *arguments[1:])

        handle = output_head(model).register_forward_pre_hook(select)
        cast = torch.autocast("cpu", self.autocast) if self.autocast else nullcontext()
        try:
            with cast:
                logits = model(input_ids=self.ids, attention_mask=self.mask, use_cache=False).logits
                return -F.cross_entropy(logits[0].float() / 1.0, self.targets, reduction="none")
        finally:
            handle.remove()


def _gradient_bytes(model: Any) -> int:
    return sum(p.grad.nbytes for p in model.parameters() if p.grad is not None)


def _mismatched(step: _Step, model: Any, kind: str, other: Any) -> None:
    with torch.no_grad():
        step.forward(model)
    _reference(step, model, kind, other)


def _reference(step: _Step, model: Any, kind: str, other: Any) -> None:
    if kind == "none":
        return
    off = model.disable_adapter() if kind == "adapter_off" else nullcontext()
    with torch.no_grad(), off:
        step.forward(model if other is None else other)


@contextmanager
def _checkpointing(model: Any) -> Iterator[None]:
    if has_adapter(model):
        model.enable_input_require_grads()
    model.activation_checkpointing_enable()
    try:
        yield
    finally:
        model.activation_checkpointing_disable()
        if has_adapter(model):
            model.disable_input_require_grads()


def _tensors(model: nn.Module | None) -> list[Tensor]:
    return [] if model is None else [*model.parameters(), *model.buffers()]


def _without_numbers(model: nn.Module | None) -> None:
    """Put fake CPU tensors in the place of a model's own; tensors that are shared stay shared."""
    made: dict[int, Any] = {}

    def fake(tensor: Tensor) -> Tensor:
        if id(tensor) not in made:
            empty = torch.empty(tensor.shape, dtype=tensor.dtype)
            is_parameter = isinstance(tensor, nn.Parameter)
            made[id(tensor)] = nn.Parameter(empty, requires_grad=tensor.requires_grad) if is_parameter else empty
        known: Tensor = made[id(tensor)]
        return known

    for module in () if model is None else model.modules():
        owned: Any
        for owned in (module._parameters, module._buffers):
            owned.update({name: fake(tensor) for name, tensor in owned.items() if tensor is not None})


class _Watch(TorchDispatchMode):
    """Sees every operation: which storages are alive, and what is computed and moved.

    Args:
        own: tensors that count elsewhere: the models' own.
    """

    def __init__(self, own: list[Tensor]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.alive = self.peak = self.working = self.small = self._aside = 0
        self.work = Work()
        self._known: dict[int, Any] = {id(t.untyped_storage()): t.untyped_storage() for t in own}

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        given = dict(kwargs or {})
        out = func(*args, **given)
        results = [leaf for leaf in tree_leaves(out) if isinstance(leaf, Tensor)]
        fresh = [self._enter(tensor) for tensor in results]
        self.peak = max(self.peak, self.alive)
        self.working = max(self.working, self.alive - self._aside)
        if func._overloadpacket in FLOPS:
            self.work += Work(flops=float(FLOPS[func._overloadpacket](*args, **given, out_val=out)))
        elif any(fresh) or func._schema.is_mutable:  # else it is a view, which moves nothing
            taken = [leaf for leaf in tree_leaves((args, given)) if isinstance(leaf, Tensor)]
            self.work += Work(traffic=float(sum(_bytes(tensor) for tensor in (*taken, *results))))
        return out

    def set_gradients_aside(self, model: nn.Module) -> None:
        """Leave a gradient out of what is at work once it is finished."""

        def finished(parameter: Tensor) -> None:
            self._aside += parameter.grad.nbytes if parameter.grad is not None else 0

        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.register_post_accumulate_grad_hook(finished)  # type: ignore[no-untyped-call]

    def _enter(self, tensor: Tensor) -> bool:
        """Count a storage that is new until nothing holds it any more."""
        storage = tensor.untyped_storage()
        key, size = id(storage), storage.nbytes()
        if key in self._known:
            return False

        def gone(_: Any) -> None:
            self.alive -= size
            self._known.pop(key, None)

        self._known[key] = weakref.ref(storage, gone)
        self.alive += size
        self.small += size if size < SMALL_BLOCK else 0
        return True


def _bytes(tensor: Tensor) -> int:
    """Return the bytes behind a tensor; what is broadcast is read once."""
    return min(tensor.nbytes, tensor.untyped_storage().nbytes())


def _attention_flops(query: Tensor, key: Tensor, products: int) -> int:
    batch, heads, length, width = query.shape
    return products * 2 * batch * heads * length * key.shape[2] * width


def _forward_flops(query: Tensor, key: Tensor, *_: Any, **__: Any) -> int:
    return _attention_flops(query, key, 2)


def _backward_flops(gradient: Tensor, query: Tensor, key: Tensor, *_: Any, **__: Any) -> int:
    return _attention_flops(query, key, 5)


FLOPS: dict[Any, Any] = {
    **flop_registry,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu: _forward_flops,
    torch.ops.aten._scaled_dot_product_flash_attention_for_cpu_backward: _backward_flops,
}
"""What counts as computing: torch's own table, and the CPU's fused attention, which that lacks."""
