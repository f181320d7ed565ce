"""How many steps a run takes, what it writes, and about how long it lasts on this machine."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from transformers import TrainingArguments

from align.models.dry_step import DryStep, Work
from align.models.machine import Speed
from align.models.skeleton import Counts

EFFICIENCY = 1.05
"""Speed of a training step beside the speed measured on bare operations: median of docs/results/forecast.md. Above 1,
since part of what counts as moved never leaves the caches."""
DECODING_EFFICIENCY = 0.25
"""The same of sampling, which multiplies thin matrices."""
LOW, HIGH = 0.75, 1.4
"""Range that is said around an estimate of time: 10 of 11 runs of docs/results/forecast.md lie in it."""
ADAPTER_OVERHEAD = 1.1
"""Size of a saved folder beside its tensors: tokenizer, configs, schedules."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """What happens in a run, in numbers.

    Attributes:
        rows: pairs or single completions trained on in an epoch.
        batch: rows an optimiser step sees, on all processes.
        batches: batches of an epoch on one process.
        steps: optimiser steps of the run.
        epochs: passes over the rows; 1.5 is one and a half.
        micro_steps: forward and backward passes of the run on one process.
        warmup: steps in which the learning rate rises.
        evaluations: passes over the held-out rows.
        eval_batches: batches of one such pass on one process.
        checkpoints: how many are written.
        kept: how many are there at once, the one that is being written among them.
    """

    rows: int
    batch: int
    batches: int
    steps: int
    epochs: float
    micro_steps: int
    warmup: int
    evaluations: int
    eval_batches: int
    checkpoints: int
    kept: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampledTokens:
    """What a stage samples: rows, tokens of their prompts, tokens of their completions (at most)."""

    sequences: int
    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Duration:
    """Estimated seconds of a run's stages, and the range around their sum."""

    making_pairs: float
    training: float
    evaluation: float
    generation: float
    drawing: float = 0.0

    @property
    def total(self) -> float:
        """Seconds of all stages."""
        return self.making_pairs + self.drawing + self.training + self.evaluation + self.generation

    @property
    def range(self) -> tuple[float, float]:
        """Seconds from and to."""
        return LOW * self.total, HIGH * self.total

    def __str__(self) -> str:
        return spoken(*self.range)


def schedule(
    arguments: TrainingArguments, rows: int, held_out: int, processes: int = 1, *, noun: str = "pair"
) -> Schedule:
    """Count what training will do, as ``transformers.Trainer`` and its callbacks count.

    Args:
        arguments: of the run.
        rows: to train on.
        held_out: rows to evaluate on.
        processes: that share the rows.
        noun: what a row is called.

    Raises:
        ValueError: if an epoch has no batch.
    """
    size, accumulate = arguments.train_batch_size, arguments.gradient_accumulation_steps
    whole = rows // size if arguments.dataloader_drop_last else math.ceil(rows / size)
    batches = whole // processes if arguments.dataloader_drop_last else math.ceil(whole / processes)
    if not batches:
        raise ValueError(
            f"{rows} {noun}s are fewer {noun}s than one batch of {size * processes}, and trainer.dataloader_drop_last "
            "drops it: lower trainer.per_device_train_batch_size, or set trainer.dataloader_drop_last=false"
        )
    an_epoch = math.ceil(batches / accumulate)
    steps = arguments.max_steps if arguments.max_steps > 0 else math.ceil(arguments.num_train_epochs * an_epoch)
    checkpoints = _times(arguments.save_strategy, float(arguments.save_steps), steps, an_epoch)
    limit = arguments.save_total_limit
    whole_epochs, rest = divmod(steps, an_epoch)
    return Schedule(
        rows=rows,
        batch=size * accumulate * processes,
        batches=batches,
        steps=steps,
        epochs=steps / an_epoch,
        micro_steps=whole_epochs * batches + rest * accumulate,
        warmup=arguments.get_warmup_steps(steps),
        evaluations=_evaluations(arguments, steps, an_epoch) if held_out else 0,
        eval_batches=math.ceil(math.ceil(held_out / arguments.eval_batch_size) / processes),
        checkpoints=checkpoints,
        kept=min(checkpoints, limit + 1) if limit else checkpoints,
    )


def checkpoint_bytes(counts: Counts, state: int | None) -> int:
    """Return the bytes of a checkpoint: what is trained, and the optimiser's state."""
    return int(ADAPTER_OVERHEAD * (counts.trainable_bytes + (state or 0)))


def duration(
    plan: Schedule,
    step: DryStep,
    shape_tokens: int,
    speed: Speed,
    *,
    counts: Counts,
    eval_tokens: int = 0,
    synth: SampledTokens | None = None,
    generation: SampledTokens | None = None,
    drawn: SampledTokens | None = None,
) -> Duration:
    """Estimate how long a run takes: its operations at this machine's speed.

    Args:
        plan: what happens.
        step: a training step of an average batch.
        shape_tokens: positions of the batch that ``step`` was made with, padding included.
        speed: of this machine.
        counts: the policy's parameters.
        eval_tokens: positions of one pass over the held-out rows on one process.
        synth: sampling of training pairs.
        generation: sampling of before and after, of one model.
        drawn: samples of one process that negatives are held against.
    """
    a_batch = seconds_of(step.work, speed)
    update = 7 * 4 * counts.trainable / speed.traffic  # a weight, its gradient and two moments: 4 reads, 3 writes
    a_pass = seconds_of(step.forwards, speed) * eval_tokens / shape_tokens
    forward = step.forward.flops / shape_tokens
    return Duration(
        making_pairs=_sampling(synth, forward, speed),
        training=plan.micro_steps * a_batch + plan.steps * update,
        evaluation=plan.evaluations * a_pass,
        generation=2 * _sampling(generation, forward, speed) + 2 * _scoring(generation, step, shape_tokens, speed),
        drawing=_sampling(drawn, forward, speed),
    )


def seconds_of(work: Work, speed: Speed) -> float:
    """Return how long operations take: products at the speed of products, all else at the speed of memory."""
    return (work.flops / speed.flops + work.traffic / speed.traffic) / EFFICIENCY


def spoken(low: float, high: float) -> str:
    """Return a range of seconds as people say it.

    Examples:
        >>> spoken(240.0, 420.0), spoken(20.0, 45.0), spoken(5000.0, 9000.0), spoken(0.2, 0.3)
        ('4-7 min', '20-45 s', '1.4-2.5 h', 'under a second')
    """
    if high < 1:
        return "under a second"
    unit, name = (1.0, "s") if high < 90 else (60.0, "min") if high < 5400 else (3600.0, "h")
    first, last = low / unit, high / unit
    digits = 1 if last < 3 else 0 if last >= 20 or name != "h" else 1
    texts = f"{first:.{digits}f}", f"{last:.{digits}f}"
    return f"{texts[0]} {name}" if texts[0] == texts[1] else f"{texts[0]}-{texts[1]} {name}"


def _sampling(stage: SampledTokens | None, forward: float, speed: Speed) -> float:
    if stage is None:
        return 0.0
    prompts = stage.prompt_tokens * forward / (speed.flops * EFFICIENCY)
    return prompts + stage.new_tokens * forward / (speed.flops * DECODING_EFFICIENCY)


def _scoring(stage: SampledTokens | None, step: DryStep, shape_tokens: int, speed: Speed) -> float:
    if stage is None:
        return 0.0
    return seconds_of(step.forward, speed) * (stage.prompt_tokens + stage.new_tokens) / shape_tokens


def _evaluations(arguments: TrainingArguments, steps: int, an_epoch: int) -> int:
    """Return how often held-out rows are gone over, the last time after training among them."""
    every = arguments.eval_steps if arguments.eval_steps is not None else arguments.logging_steps
    delay = float(arguments.eval_delay)
    during = _times(arguments.eval_strategy, float(every), steps, an_epoch, delay=delay)
    ends_in_one = during > 0 and not arguments.load_best_model_at_end
    ends_in_one &= str(_value(arguments.eval_strategy)) == "steps" or steps % an_epoch == 0
    return int(bool(arguments.eval_on_start)) + during + int(not ends_in_one)


def _times(strategy: Any, every: float, steps: int, an_epoch: int, *, delay: float = 0.0) -> int:
    """Return how often something happens; by steps, the last step always counts."""
    kind = _value(strategy)
    if kind == "steps":
        if not every:
            return 1
        interval = max(int(every) if every >= 1 else math.ceil(every * steps), 1)
        return len([s for s in _marks(interval, steps) if s >= delay])
    if kind == "epoch":
        return len([epoch for epoch in range(1, math.ceil(steps / an_epoch) + 1) if epoch >= delay])
    return 1 if kind == "best" else 0


def _marks(interval: int, steps: int) -> Sequence[int]:
    marks = list(range(interval, steps + 1, interval))
    return marks if marks and marks[-1] == steps else [*marks, steps]


def _value(strategy: Any) -> str:
    return str(getattr(strategy, "value", strategy))
