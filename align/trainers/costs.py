"""What a run costs on this machine: memory stage by stage, and time."""

import math
import os
from dataclasses import asdict, dataclass
from typing import Any

from transformers import TrainingArguments

from align.data.statistics import Batches, PairColumns
from align.models.dry_step import BatchShape, DryStep, dry_step, rough_step
from align.models.footprint import (
    Copies,
    Footprint,
    Sampling,
    advice,
    cache_bytes,
    footprint,
    optimiser_bytes,
    shapes_of,
)
from align.models.load import describe_weights
from align.models.machine import Speed, free_memory, measure_speed
from align.models.skeleton import counts
from align.recipe.schema import GenerationSettings, Recipe, SynthSettings
from align.report.console import stage
from align.trainers.combinations import checkpointing
from align.trainers.forecast import SampledTokens, Schedule, duration
from align.trainers.planned import PlannedModel, sampled_tokens

MEASURED_ROWS = 4096
"""Most rows of the matrices whose product is timed."""

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """What a run will do, as far as its costs follow from it.

    Attributes:
        recipe: of the run.
        arguments: of its trainer, on this machine.
        model: the policy as structure.
        plan: steps, evaluations, checkpoints.
        train: columns of the pairs to train on.
        held_out: columns of the held-out pairs, or None.
        batches: of training.
        eval_batches: of an evaluation, or None.
        synthetic: whether pairs are still to be made.
        processes: that train together.
    """

    recipe: Recipe
    arguments: TrainingArguments
    model: PlannedModel
    plan: Schedule
    train: PairColumns
    held_out: PairColumns | None
    batches: Batches
    eval_batches: Batches | None
    synthetic: bool
    processes: int

    @property
    def optim(self) -> str:
        """Name of the optimiser."""
        return str(getattr(self.arguments.optim, "value", self.arguments.optim))

    @property
    def positions(self) -> float:
        """Positions of an average batch, padding included."""
        return 2 * min(self.arguments.train_batch_size, len(self.train)) * self.batches.mean_width


class Costs:
    """Memory and time of a run.

    Attributes:
        warnings: what came up on the way.
        optimiser_bytes: of the optimiser's state; None where that is not known.
        reference_bytes: of a second model.
    """

    def __init__(self, run: PlannedRun) -> None:
        self.run, self.recipe, self.arguments, self.model = run, run.recipe, run.arguments, run.model
        self.warnings: list[str] = []
        self.counts = counts(run.model.policy)
        self.shapes = shapes_of(run.model.policy)
        self.optimiser_bytes = optimiser_bytes(run.optim, self.counts, self.shapes)
        other = run.model.other
        copied = run.model.reference not in ("none", "adapter_off")
        self.reference_bytes = (counts(other) if other is not None else self.counts).weight_bytes if copied else 0
        made = [source.synth for source in run.recipe.data.train if source.synth is not None]
        self._synth = made[0] if made and run.synthetic else None

    def facts(self) -> Facts:
        """Return the sections ``memory`` and ``time``."""
        run = self.run
        speed = self._measured()
        with stage("following a training step without numbers"):
            widest = self._step(self._widest(run.batches, run.train, self.arguments.train_batch_size))
            speed = speed.best(self._measured())
            evaluation = None
            if run.held_out is not None and run.eval_batches is not None:
                shape = self._widest(run.eval_batches, run.held_out, self.arguments.eval_batch_size)
                evaluation = self._step(shape, train=False)
            speed = speed.best(self._measured())
            usual_shape = self._usual()
            usual = self._step(usual_shape)
            speed = speed.best(self._measured())
        return {"memory": self._memory(widest, evaluation), "time": self._time(usual, usual_shape, speed)}

    def _memory(self, widest: DryStep, evaluation: DryStep | None) -> Facts:
        device = self.arguments.device
        plan = self._footprint(widest, evaluation, on_cpu=device.type == "cpu")
        memory = free_memory(device)
        verdict = plan.verdict(memory)
        pairs = min(self.arguments.train_batch_size, len(self.run.train))
        ways = advice(
            plan,
            widest,
            lora=self.recipe.model.lora is not None,
            checkpointing=checkpointing(self.recipe.trainer),
            pairs=pairs,
        )
        if verdict != "fits":
            first = "; ".join(f"{text} (about {saved / 2**30:.1f} GiB less)" for text, saved in ways[:3])
            self.warnings.append(
                f"memory: {plan.total / 2**30:.1f} GiB needed, {memory.available / 2**30:.1f} GiB available: {verdict}"
                + (f"; first: {first}" if first else "")
            )
        self.warnings += plan.unknown
        return {
            "kind": memory.kind,
            "stages": {each.name: dict(each.parts) for each in plan.stages},
            "peak_stage": plan.peak.name,
            "peak_bytes": plan.peak.total,
            "processes": plan.processes,
            "total_bytes": plan.total,
            "available_bytes": memory.available,
            "available_by": memory.source,
            "verdict": verdict,
            "advice": [{"change": text, "saves_bytes": saved} for text, saved in ways],
        }

    def _footprint(self, widest: DryStep, evaluation: DryStep | None, *, on_cpu: bool) -> Footprint:
        weights = self.counts.weight_bytes
        copies = Copies(
            policy=weights,
            reference=self.reference_bytes,
            sampling=self.counts.parameters * self.model.precision.sampling.itemsize,
            loading=2 if describe_weights(self.recipe.model.path) else 1,  # a GGUF file is copied once it is read
        )
        return footprint(
            copies,
            self.counts,
            widest,
            optim=self.run.optim,
            shapes=self.shapes,
            evaluation=evaluation,
            synth=self._sampling(self._synth),
            generation=self._sampling(self.recipe.evaluation.generation),
            on_cpu=on_cpu,
            processes=self.run.processes,
        )

    def _sampling(self, settings: SynthSettings | GenerationSettings | None) -> Sampling | None:
        if settings is None:
            return None
        tokens, longest = sampled_tokens(settings, self.model.tokenizer)
        return Sampling(
            sequences=min(settings.batch_size, tokens.sequences),
            width=longest + settings.max_new_tokens,
            new_tokens=settings.max_new_tokens,
            cache_bytes=cache_bytes(self.model.config, self.model.precision.sampling.itemsize),
            vocabulary=int(self.model.policy.get_input_embeddings().weight.shape[0]),
        )

    def _measured(self) -> Speed:
        """Measure this machine now; called at several moments, of which the best counts."""
        text = self.model.config.get_text_config()
        hidden = int(text.hidden_size)
        inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
        rows = min(max(int(self.run.positions), 1), MEASURED_ROWS)
        return measure_speed(self.arguments.device, self.model.arithmetic, (rows, hidden, inner))

    def _time(self, usual: DryStep, shape: BatchShape, speed: Speed) -> Facts:
        synth = _tokens(self._synth, self.model)
        eval_tokens = 0
        if self.run.held_out is not None and self.run.eval_batches is not None:
            eval_tokens = round(2 * len(self.run.held_out) * self.run.eval_batches.mean_width / self.run.processes)
        taken = duration(
            self.run.plan,
            usual,
            shape.sequences * shape.width,
            speed,
            counts=self.counts,
            eval_tokens=eval_tokens,
            synth=synth,
            generation=_tokens(self.recipe.evaluation.generation, self.model),
        )
        return {
            **asdict(taken),
            "total": taken.total,
            "low": taken.range[0],
            "high": taken.range[1],
            "says": str(taken),
            "step_flops": usual.work.flops,
            "step_traffic": usual.work.traffic,
            "speed_flops": speed.flops,
            "speed_traffic": speed.traffic,
            "dtype": str(speed.dtype).removeprefix("torch."),
            "threads": speed.threads,
            "device": self.arguments.device.type,
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # Windows has none
            "cores": os.cpu_count() or 1,
        }

    def _step(self, shape: BatchShape, *, train: bool = True) -> DryStep:
        recomputed = checkpointing(self.recipe.trainer)
        try:
            return dry_step(
                self.model.policy,
                shape,
                reference=self.model.reference,
                other=self.model.other,
                train=train,
                checkpointing=recomputed,
                accumulate=self.arguments.gradient_accumulation_steps > 1,
                autocast=self.model.autocast,
            )
        except Exception as error:  # a model's own code may do anything
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            caution = f"memory and time are rough: a step cannot be followed without numbers ({reason})"
            self.warnings += [caution] if caution not in self.warnings else []
            referred = self.model.reference != "none"
            return rough_step(
                self.model.config, self.counts, shape, referred=referred, train=train, checkpointing=recomputed
            )

    def _widest(self, batches: Batches, columns: PairColumns, size: int) -> BatchShape:
        """Return the largest batch there can be: the longest row may come into any."""
        return BatchShape(
            sequences=2 * min(size, len(columns)),
            width=int(columns.longest.max()),
            completion_tokens=batches.max_completion_tokens,
        )

    def _usual(self) -> BatchShape:
        return BatchShape(
            sequences=2 * min(self.arguments.train_batch_size, len(self.run.train)),
            width=max(2, round(self.run.batches.mean_width)),
            completion_tokens=math.ceil(self.run.batches.mean_completion_tokens),
        )


def _tokens(settings: SynthSettings | GenerationSettings | None, model: PlannedModel) -> SampledTokens | None:
    return None if settings is None else sampled_tokens(settings, model.tokenizer)[0]
