"""What each process holds under every engine: its share of a training, and what passes through its memory.

Read from the sources of torch 2.13, accelerate 1.15 and DeepSpeed 0.19.8, as ``accelerate_configs/`` sets them up.
accelerate hands DeepSpeed a configuration with the stage and without bucket sizes where no DeepSpeed file is named
(``accelerate/utils/dataclasses.py``, ``DeepSpeedPlugin.__post_init__``), so that DeepSpeed's own defaults hold. Bytes
throughout; a *number* is one element of a tensor. Small tensors that ZeRO-3 does not shard (norms), and what is added
so that shards are equally long, are left out.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

from torch import nn

from align.models.adapters import has_adapter
from align.models.footprint import GIB, optimiser_bytes, shapes_of
from align.models.skeleton import Counts, counts

EngineName = Literal["ddp", "zero1", "zero2", "fsdp2", "zero3"]

ENGINES: tuple[EngineName, ...] = ("ddp", "zero1", "zero2", "fsdp2", "zero3")
"""Names of the files in ``accelerate_configs/``, the simplest first: what shards less has less that can go wrong."""
SHARDS_WEIGHTS = ("fsdp2", "zero3")

MASTER = 4
"""Bytes of a number of ZeRO's own copy of what is trained, float32 whatever the weights are
(``stage_1_and_2.py``: ``single_partition_of_fp32_groups``; ``stage3.py``: ``fp32_partitioned_groups_flat``)."""
REDUCE_BUCKET = 500_000_000
"""Numbers of the buffer that gradients are reduced in: ``reduce_bucket_size`` (``deepspeed/runtime/zero/config.py``);
allocated whole, however small the model."""
LIVE = 1_000_000_000
"""Numbers that ZeRO-3 keeps gathered until they are used again: ``stage3_max_live_parameters``, and as many in
``stage3_max_reuse_distance``."""
SUB_GROUP = 1_000_000_000
"""Numbers of a shard that ZeRO-3's optimiser updates at a time: ``sub_group_size``."""
RESERVE = 2 * GIB
"""CUDA's context, the workspaces of its libraries, and NCCL's buffers on one GPU: a round figure of ours, not measured.
What the caching allocator cannot use is not in it; that a plan is *tight* above 85 % is meant for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Units:
    """Numbers of the parts of a model that are gathered as one.

    Attributes:
        layer: the largest of the layers.
        tail: output head and final norm, and the embedding where it is the head's.
    """

    layer: int
    tail: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Training:
    """What engines divide.

    Attributes:
        counts: of the policy, in the types that it is loaded in.
        reference: of a second model, likewise; None where there is none.
        optim: ``trainer.optim``.
        shapes: of the tensors that are trained.
        mixed: bytes of a number that is computed with under mixed precision; None where weights keep their types.
        units: of the policy.
        accumulates: whether an optimiser step sees several batches.
        reduces_each: whether FSDP2 reduces after each of them (``sync_each_batch``).
    """

    counts: Counts
    reference: Counts | None
    optim: str
    shapes: Sequence[Sequence[int]] = field(repr=False)
    mixed: int | None
    units: Units
    accumulates: bool = False
    reduces_each: bool = False

    @property
    def computed(self) -> float:
        """Bytes of a number of the policy while it computes."""
        return float(self.mixed or self.counts.weight_bytes / self.counts.parameters)

    @property
    def holds_whole_gradients(self) -> bool:
        """Whether FSDP2 keeps gradients whole between the batches of a step.

        ``transformers.Trainer`` enters ``accelerator.no_sync`` for all batches but the last, which is
        ``set_requires_gradient_sync(False)``: nothing is reduced, and nothing sharded (``_fsdp_param_group.py``,
        ``post_backward``).
        """
        return self.accumulates and not self.reduces_each


@dataclass(frozen=True, slots=True, kw_only=True)
class Share:
    """Bytes that one process holds from step to step.

    Attributes:
        weights: of the policy, in the type it computes in under ZeRO, else in the type it is loaded in.
        gradients: after a backward; whole or a shard.
        optimiser: state, and under ZeRO the copy of the weights that is updated; 0 where it is not known.
        reference: the second model.
    """

    weights: int
    gradients: int
    optimiser: int
    reference: int

    @property
    def total(self) -> int:
        """Bytes of all four."""
        return self.weights + self.gradients + self.optimiser + self.reference


def training_of(
    policy: Any,
    reference: Any = None,
    *,
    optim: str,
    mixed: int | None = None,
    accumulates: bool = False,
    reduces_each: bool = False,
) -> Training:
    """Return what engines divide of a policy and a second model, on whatever device they are, the meta device too.

    Args:
        policy: adapters on.
        reference: the second model, or one like it; the policy itself stands for a copy of it.
        optim: ``trainer.optim``.
        mixed: see :class:`Training`, as the others.
        accumulates: likewise.
        reduces_each: likewise.
    """
    return Training(
        counts=counts(policy),
        reference=None if reference is None else counts(reference),
        optim=optim,
        shapes=shapes_of(policy),
        mixed=mixed,
        units=units_of(policy),
        accumulates=accumulates,
        reduces_each=reduces_each,
    )


def share(engine: EngineName, processes: int, training: Training) -> Share:
    """Return what one of so many processes holds under an engine, activations and buffers left out.

    Examples:
        >>> counts = Counts(parameters=10**6, trainable=10**6, weight_bytes=4 * 10**6, trainable_bytes=4 * 10**6)
        >>> units = Units(layer=1000, tail=1000)
        >>> training = Training(counts=counts, reference=None, optim="adamw_torch", shapes=(), mixed=2, units=units)
        >>> share("zero3", 8, training)  # an eighth of 2 bytes, 2 bytes, and 4 + 8 bytes a number
        Share(weights=250000, gradients=250000, optimiser=1500000, reference=0)
    """
    deepspeed = engine.startswith("zero")
    # DeepSpeed casts every parameter when bf16 or fp16 is on (engine.py, _cast_module_mixed_precision); DDP computes
    # under autocast and FSDP2 casts what it gathers, both beside weights that stay as they were loaded.
    weights = _cast(training.counts, training.mixed if deepspeed else None)
    return Share(
        weights=_of(weights, processes) if engine in SHARDS_WEIGHTS else weights,
        gradients=_gradients(engine, processes, training),
        optimiser=_optimiser(engine, processes, training),
        reference=_reference(engine, processes, training),
    )


def buffers(engine: EngineName, processes: int, training: Training) -> Mapping[str, int]:
    """Return what is there beside a share in a backward, activations left out, by what it is for."""
    if engine == "ddp":
        # gradient_as_bucket_view is False (DistributedDataParallelKwargs): buckets are a second copy of gradients.
        return {"gradient buckets": training.counts.trainable_bytes if processes > 1 else 0}
    if engine == "fsdp2":
        return _fsdp2_buffers(training)
    each = _gradient_bytes(engine, training)
    # The bucket, and the flat copy of its tensors that is sent: allreduce_bucket, and reduce_scatter_coalesced.
    reducing = int(each * (REDUCE_BUCKET + min(REDUCE_BUCKET, training.counts.trainable)))
    live = {"gathered weights": gathered(engine, training)} if engine == "zero3" else {}
    return {"gradient buckets": reducing, **live}


def gathered(engine: EngineName, training: Training) -> int:
    """Return the most bytes of weights that are there whole while the policy computes without gradients.

    FSDP2's forward has a layer, the buffer it came in and that of the next, and the tail, which it does not shard again
    after a forward. ZeRO-3 keeps what it meets again within :data:`LIVE` numbers, and fetches one part more.
    """
    units, most = training.units, training.counts.parameters
    if engine == "fsdp2":
        return int(training.computed * min(most, 3 * units.layer + units.tail))
    if engine == "zero3":
        return int(training.computed * min(most, LIVE + max(units.layer, units.tail)))
    return 0


def updating(engine: EngineName, processes: int, training: Training) -> int:
    """Return what the optimiser's step takes beside a share: ZeRO's gradients in float32, from flat ones in their type.

    Fused optimisers, which transformers takes by default, need nothing; temporary lists of others are left out.
    """
    if not engine.startswith("zero"):
        return 0
    numbers = _of(training.counts.trainable, processes)
    if engine == "zero3":
        numbers = min(numbers, SUB_GROUP)
    return int((MASTER + _gradient_bytes(engine, training)) * numbers)


def units_of(model: Any) -> Units:
    """Return the parts of a model that FSDP2 gathers as one: as accelerate's ``fsdp2_prepare_model`` forms them."""
    base = model.get_base_model() if has_adapter(model) else model
    names = set(getattr(base, "_no_split_modules", None) or ())
    layers = [_numbers(module) for module in base.modules() if type(module).__name__ in names]
    # Of a model that names none, the whole is one.
    return Units(layer=max(layers, default=_numbers(base)), tail=_numbers(base.get_output_embeddings()))


def _fsdp2_buffers(training: Training) -> Mapping[str, int]:
    """Return what FSDP2 has whole in a backward.

    Either the tail, the layer that is fetched meanwhile and the tail's gradient in the buffer it is sent in; or a layer
    and the next, a layer's gradients and the buffer they are sent in (``foreach_reduce`` copies, then drops them; at
    most one such buffer: ``reduce_scatter_max_input_buffers``).
    """
    units, trained = training.units, training.counts.trainable / training.counts.parameters
    weights = max(units.tail + units.layer, 2 * units.layer)
    gradients = trained * max(units.tail, 2 * units.layer)
    each = training.computed
    return {"gathered weights": int(each * weights), "gradients on their way": int(each * gradients)}


def _gradient_bytes(engine: EngineName, training: Training) -> float:
    """Return the bytes of a number of a finished gradient.

    ZeRO adds up in the type it computes in, and in float32 where neither bf16 nor fp16 is on (engine.py,
    ``get_data_types``).
    """
    if engine.startswith("zero"):
        return float(training.mixed or MASTER)
    return training.counts.trainable_bytes / max(training.counts.trainable, 1)


def _gradients(engine: EngineName, processes: int, training: Training) -> int:
    trained = training.counts.trainable
    if engine == "fsdp2" and training.holds_whole_gradients:
        return trained * training.mixed if training.mixed else training.counts.trainable_bytes
    whole = int(trained * _gradient_bytes(engine, training))
    # ZeRO-1 reduces after the last backward (reduce_gradients): until then every gradient is whole.
    return whole if engine in ("ddp", "zero1") else _of(whole, processes)


def _optimiser(engine: EngineName, processes: int, training: Training) -> int:
    if not engine.startswith("zero"):
        state = optimiser_bytes(training.optim, training.counts, training.shapes) or 0
        return _of(state, processes) if engine == "fsdp2" else state
    trained = training.counts.trainable
    flat = replace(training.counts, trainable_bytes=MASTER * trained)
    state = optimiser_bytes(training.optim, flat, [(trained,)]) or 0  # one long row: nothing to factor
    return _of(MASTER * trained + state, processes)


def _reference(engine: EngineName, processes: int, training: Training) -> int:
    other = training.reference
    if other is None:
        return 0
    whole = _cast(other, training.mixed if engine.startswith("zero") else None)
    return _of(whole, processes) if engine in SHARDS_WEIGHTS else whole


def _cast(counts: Counts, itemsize: int | None) -> int:
    return counts.weight_bytes if itemsize is None else counts.parameters * itemsize


def _of(whole: int, processes: int) -> int:
    return -(-whole // processes)


def _numbers(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())
