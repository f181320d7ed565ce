"""Memory of a run, stage by stage: what is there at once, whether it fits, and what to change first if not."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from align.models.dry_step import DryStep
from align.models.machine import Memory
from align.models.skeleton import Counts

GIB = 2**30
PROCESS = int(0.6 * GIB)
"""Python, torch and the other libraries in main memory: measured with all imported and a tokenizer read."""
KEPT_BY_MALLOC = 0.23
"""Share of a forward's small blocks that glibc still holds at the peak: 0.20 to 0.27 in docs/results/forecast.md."""
TIGHT = 0.85
"""Share of what is available above which a run is called tight."""

Verdict = Literal["fits", "tight", "does not fit"]

STATE_BYTES: dict[str, float] = {
    **dict.fromkeys(("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused"), 8.0),
    **dict.fromkeys(("paged_adamw_32bit", "schedule_free_adamw", "schedule_free_radam", "stable_adamw"), 8.0),
    **dict.fromkeys(("ademamix", "paged_ademamix_32bit"), 12.0),
    **dict.fromkeys(("adagrad", "rmsprop", "rmsprop_bnb", "rmsprop_bnb_32bit", "schedule_free_sgd"), 4.0),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit"), 4.0),
    **dict.fromkeys(("adamw_8bit", "adamw_bnb_8bit", "paged_adamw_8bit", "adamw_torch_8bit"), 2.0),
    **dict.fromkeys(("ademamix_8bit", "paged_ademamix_8bit"), 3.0),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit", "rmsprop_bnb_8bit", "adamw_torch_4bit"), 1.0),
    **dict.fromkeys(("sgd", "lomo"), 0.0),
}
"""Bytes of optimiser state for a trainable number, from each optimiser's own documentation; state of 32-bit numbers is
in the number type of the parameter, and half as large where that has 16 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """A part of a run, and the bytes that are there at once at its worst moment.

    Attributes:
        name: of the stage.
        parts: bytes by what they are for; parts are there at the same time.
    """

    name: str
    parts: Mapping[str, int]

    @property
    def total(self) -> int:
        """Bytes of all parts."""
        return sum(self.parts.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Footprint:
    """Memory of a run.

    Attributes:
        stages: of one process.
        processes: processes that share the machine's memory; 1 where each has a GPU of its own.
        unknown: what the sum leaves out, for people.
    """

    stages: Sequence[Stage]
    processes: int = 1
    unknown: Sequence[str] = ()

    @property
    def peak(self) -> Stage:
        """The stage that needs most."""
        return max(self.stages, key=lambda stage: stage.total)

    @property
    def total(self) -> int:
        """Bytes at the worst moment, of all processes that share the memory."""
        return self.peak.total * self.processes

    def verdict(self, memory: Memory) -> Verdict:
        """Return whether a machine has enough."""
        if self.total > memory.available:
            return "does not fit"
        return "tight" if self.total > TIGHT * memory.available else "fits"


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """Models that are in memory, in bytes.

    Attributes:
        policy: its weights, adapters included.
        reference: a second model's weights; 0 where there is none.
        sampling: the policy's weights in the number type that samples are drawn in.
        loading: times the policy's weights are in memory while they are loaded.
    """

    policy: int
    reference: int
    sampling: int
    loading: int = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """A stage that samples.

    Attributes:
        sequences: rows sampled at a time.
        width: tokens of a prompt and its completion.
        new_tokens: tokens of a completion.
        cache_bytes: bytes of keys and values of one token.
        vocabulary: numbers of a token's logits.
    """

    sequences: int
    width: int
    new_tokens: int
    cache_bytes: int
    vocabulary: int

    @property
    def decoding(self) -> int:
        """Bytes of keys and values, and of a step's logits in float32: as they are, scaled, sorted, summed up."""
        return self.sequences * (self.width * self.cache_bytes + 4 * 4 * self.vocabulary)

    @property
    def scoring(self) -> int:
        """Bytes of logits while the KL is measured: those of every sampled token, scaled, as log-probabilities."""
        return 3 * 4 * self.sequences * self.new_tokens * self.vocabulary


def footprint(
    copies: Copies,
    counts: Counts,
    step: DryStep,
    *,
    optim: str,
    shapes: Sequence[Sequence[int]] = (),
    evaluation: DryStep | None = None,
    synth: Sampling | None = None,
    drawing: Sampling | None = None,
    generation: Sampling | None = None,
    on_cpu: bool = True,
    processes: int = 1,
) -> Footprint:
    """Add up what a run holds at the worst moment of each of its stages.

    Args:
        copies: models in memory.
        counts: the policy's parameters.
        step: a training step of the widest batch.
        optim: ``trainer.optim``.
        shapes: of the trainable tensors, for optimisers whose state follows from them.
        evaluation: an evaluation step of the widest batch.
        synth: sampling of training pairs, before training.
        drawing: sampling of what negatives are held against, before training.
        generation: sampling of before and after.
        on_cpu: whether models are in main memory, where the libraries and malloc's leftovers count.
        processes: launched together.
    """
    state = optimiser_bytes(optim, counts, shapes)
    rest = {"libraries": PROCESS} if on_cpu else {}
    held = {"weights": copies.policy, "reference copy": copies.reference, "optimiser state": state or 0}
    kept = {"kept by malloc": int(KEPT_BY_MALLOC * step.small)} if on_cpu else {}
    buckets = {"gradient buckets": counts.trainable_bytes} if processes > 1 else {}
    stages = [Stage(name="loading", parts={**rest, "weights": copies.policy * copies.loading})]
    if synth is not None:
        parts = {"weights": copies.policy, "sampling copy": copies.sampling, "decoding": synth.decoding}
        stages.append(Stage(name="making pairs", parts={**rest, **parts}))
    if drawing is not None:
        parts = {"weights": copies.policy, "reference copy": copies.reference, "decoding": drawing.decoding}
        stages.append(Stage(name="drawing samples", parts={**rest, **parts}))
    working = {"gradients": step.gradients, "activations": max(step.peak - step.gradients, 0)}
    stages.append(Stage(name="training", parts={**rest, **held, **buckets, **working, **kept}))
    if evaluation is not None:
        stages.append(Stage(name="evaluation", parts={**rest, **held, "activations": evaluation.peak, **kept}))
    if generation is not None:
        stages.append(Stage(name="before and after", parts={**rest, **held, **compared(copies, generation)}))
    unknown = [] if state is not None else [f"optimiser state: how much {optim} keeps is not known here"]
    return Footprint(stages=stages, processes=processes if on_cpu else 1, unknown=unknown)


def optimiser_bytes(optim: str, counts: Counts, shapes: Sequence[Sequence[int]] = ()) -> int | None:
    """Return the bytes of an optimiser's state, or None where that is not known.

    Examples:
        >>> two = Counts(parameters=2, trainable=2, weight_bytes=8, trainable_bytes=8)
        >>> optimiser_bytes("adamw_torch", two), optimiser_bytes("galore_adamw", two)
        (16, None)
    """
    if optim == "adafactor":  # a row and a column for a matrix, a number each for the rest
        return 4 * sum(_factored(shape) for shape in shapes)
    each = STATE_BYTES.get(optim)
    if each is None:
        return None
    full = counts.trainable_bytes / 4 if each >= 4 else counts.trainable
    return int(each * full)


def shapes_of(model: nn.Module) -> list[tuple[int, ...]]:
    """Return the shapes of the tensors that are trained."""
    return [tuple(parameter.shape) for parameter in model.parameters() if parameter.requires_grad]


def cache_bytes(config: Any, itemsize: int) -> int:
    """Return the bytes of keys and values of one token, over all layers."""
    text = config.get_text_config()
    heads = getattr(text, "num_key_value_heads", None) or text.num_attention_heads
    width = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    return 2 * int(text.num_hidden_layers) * int(heads) * int(width) * itemsize


def advice(
    plan: Footprint,
    step: DryStep,
    *,
    lora: bool,
    checkpointing: bool,
    rows: int,
    copied: bool = False,
    sharded: bool = False,
) -> list[tuple[str, int]]:
    """Return what to change first and about how many bytes that saves, the most effective first.

    Args:
        plan: the run's memory.
        step: the training step it was made with.
        lora: whether adapters are trained already.
        checkpointing: whether activations are computed again already.
        rows: pairs or single completions in a batch on one device.
        copied: whether the reference is a copy with adapters too.
        sharded: whether the optimiser sees shards, whose state Adafactor cannot factor.
    """
    parts = plan.peak.parts
    activations = parts.get("activations", 0)
    ways = []
    if not lora:
        spared = ("gradients", "optimiser state") if copied else ("reference copy", "gradients", "optimiser state")
        says = "set model.lora: " + ("" if copied else "no second copy, and ") + "optimiser state only for adapters"
        ways.append((says, sum(parts.get(name, 0) for name in spared)))
    if not checkpointing and "gradients" in parts:
        most = max(step.kept - step.small // 20, 0)
        ways.append(("set trainer.activation_checkpointing=true: about a third more time", int(0.8 * most)))
    if rows > 1 and activations:
        says = "halve trainer.per_device_train_batch_size and double trainer.gradient_accumulation_steps"
        ways.append((says, (activations + parts.get("kept by malloc", 0)) // 2))
    if activations:
        ways.append(("halve data.max_length: activations follow the longest row", activations // 2))
    if parts.get("optimiser state", 0) and not sharded:
        ways.append(("set trainer.optim=adafactor", parts["optimiser state"]))
    if "scoring" in parts:
        ways.append(("halve evaluation.generation.batch_size", parts["scoring"] // 2))
    worth = [(text, saved * plan.processes) for text, saved in ways if saved > 0.02 * plan.peak.total]
    return sorted(worth, key=lambda way: -way[1])


def compared(copies: Copies, generation: Sampling) -> dict[str, int]:
    """Return what comparing before and after holds: while the base's copy is made, two passing copies are there."""
    making, scoring = 2 * copies.policy, max(generation.decoding, generation.scoring)
    if making > copies.sampling + scoring:
        return {"aligned copy": copies.sampling, "base copy while it is made": making}
    return {"aligned copy": copies.sampling, "base copy": copies.sampling, "scoring": scoring}


def _factored(shape: Sequence[int]) -> int:
    *outer, last = shape if shape else (1,)
    if not outer:
        return last
    leading = 1
    for size in outer[:-1]:
        leading *= size
    return leading * (outer[-1] + last)
