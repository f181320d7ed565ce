"""What a run costs on this machine: memory stage by stage, and time."""

import math
import os
from dataclasses import asdict, dataclass, replace
from typing import Any

from transformers import TrainingArguments

from align.data.row_columns import RowColumns
from align.data.statistics import Batches
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
from align.sampling.self_samples import instruction_ids
from align.trainers.combinations import checkpointing
from align.trainers.forecast import SampledTokens, Schedule, duration
from align.trainers.planned import PlannedModel, sampled_tokens
from align.trainers.preference import length_limit
from align.trainers.sections import copies_of_d2o, draws_samples, finer_bytes

MEASURED_ROWS = 4096
"""Most rows of the matrices whose product is timed."""

Facts = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedSplit:
    """Rows of a split, and what its batches are like.

    Attributes:
        columns: of the rows.
        size: rows in a batch.
        sides: those that are computed, a sequence a row each.
        batches: of what is computed.
        mismatched: of prompts with completions of other rows, which both models see as well; None where they do not.
        versions: of each row that the policy alone sees beside it, at most.
    """

    columns: RowColumns
    size: int
    sides: tuple[str, ...]
    batches: Batches
    mismatched: Batches | None = None
    versions: int = 0

    @property
    def sequences(self) -> int:
        """Rows of a batch's forward."""
        return len(self.sides) * min(self.size, len(self.columns))

    def beside(self, shape: BatchShape) -> BatchShape | None:
        """Return the versions that go with a batch; None where there are none."""
        rows = self.versions * min(self.size, len(self.columns))
        return BatchShape(sequences=rows, width=shape.width, completion_tokens=rows) if rows else None

    @property
    def widest(self) -> BatchShape:
        """The largest batch there can be: the longest row may come into any."""
        return BatchShape(
            sequences=self.sequences,
            width=int(self.columns.widths(self.sides).max()),
            completion_tokens=self.batches.max_completion_tokens,
        )

    @property
    def usual(self) -> BatchShape:
        """An average batch."""
        return self._average(self.batches)

    @property
    def usual_mismatched(self) -> BatchShape | None:
        """Mismatched rows of an average batch."""
        return None if self.mismatched is None else self._average(self.mismatched)

    def widest_mismatched(self, max_length: int | None) -> BatchShape | None:
        """Return the largest batch of mismatched rows: any prompt may meet any completion."""
        if self.mismatched is None:
            return None
        longest = int(self.columns.prompt.max() + self.columns.sides["completion"].max())
        return BatchShape(
            sequences=self.sequences,
            width=longest if max_length is None else min(longest, max_length),
            completion_tokens=self.mismatched.max_completion_tokens,
        )

    def _average(self, batches: Batches) -> BatchShape:
        return BatchShape(
            sequences=self.sequences,
            width=max(2, round(batches.mean_width)),
            completion_tokens=math.ceil(batches.mean_completion_tokens),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedRun:
    """What a run will do, as far as its costs follow from it.

    Attributes:
        recipe: of the run.
        arguments: of its trainer, on this machine.
        model: the policy as structure.
        plan: steps, evaluations, checkpoints.
        train: rows to train on.
        held_out: held-out rows, or None.
        synthetic: whether pairs are still to be made.
        processes: that train together.
    """

    recipe: Recipe
    arguments: TrainingArguments
    model: PlannedModel
    plan: Schedule
    train: PlannedSplit
    held_out: PlannedSplit | None
    synthetic: bool
    processes: int

    @property
    def optim(self) -> str:
        """Name of the optimiser."""
        return str(getattr(self.arguments.optim, "value", self.arguments.optim))

    @property
    def positions(self) -> float:
        """Positions of an average batch, padding included."""
        return self.train.sequences * self.train.batches.mean_width

    @property
    def eval_tokens(self) -> int:
        """Positions of one pass over the held-out rows on one process."""
        if self.held_out is None:
            return 0
        sequences = len(self.held_out.sides) * len(self.held_out.columns)
        return round(sequences * self.held_out.batches.mean_width / self.processes)

    @property
    def rows_at_once(self) -> int:
        """Rows of a batch on one device."""
        return min(self.train.size, len(self.train.columns))

    @property
    def copies_adapters(self) -> bool:
        """Whether the reference is a copy with adapters too."""
        model = self.recipe.model
        return model.reference_sync is not None or model.reference not in ("auto", "none")


class Costs:
    """Memory and time of a run.

    Attributes:
        warnings: what came up on the way.
        optimiser_bytes: of the optimiser's state; None where that is not known.
        reference_bytes: of a second model, and of copies that are sampled from or that samples are compared with.
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
        self.reference_bytes += sum(copies_of_d2o(self.recipe)) * self.counts.weight_bytes
        self.reference_bytes += finer_bytes(self.recipe, self.counts)
        made = [source.synth for source in run.recipe.data.train if source.synth is not None]
        self.synth = made[0] if made and run.synthetic else None

    def facts(self) -> Facts:
        """Return the sections ``memory`` and ``time``."""
        run = self.run
        speed = self._measured()
        with stage("following a training step without numbers"):
            widest = self.largest(run.train)
            speed = speed.best(self._measured())
            evaluation = self.largest(run.held_out, train=False) if run.held_out is not None else None
            speed = speed.best(self._measured())
            shape = run.train.usual
            usual = self.step(shape, mismatched=run.train.usual_mismatched, beside=run.train.beside(shape))
            speed = speed.best(self._measured())
        return {"memory": self._memory(widest, evaluation), "time": self._time(usual, run.train.usual, speed)}

    def _memory(self, widest: DryStep, evaluation: DryStep | None) -> Facts:
        device = self.arguments.device
        plan = self._footprint(widest, evaluation, on_cpu=device.type == "cpu")
        memory = free_memory(device)
        verdict = plan.verdict(memory)
        ways = advice(
            plan,
            widest,
            lora=self.recipe.model.lora is not None,
            checkpointing=checkpointing(self.recipe),
            rows=self.run.rows_at_once,
            copied=self.run.copies_adapters,
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
            synth=self.sampling(self.synth),
            drawing=self.drawing(),
            generation=self.sampling(self.recipe.evaluation.generation),
            on_cpu=on_cpu,
            processes=self.run.processes,
        )

    def sampling(self, settings: SynthSettings | GenerationSettings | None) -> Sampling | None:
        """Return a stage that samples, or None where there is none."""
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

    def drawing(self) -> Sampling | None:
        """Return the drawing of samples for negatives; None where there is none."""
        settings, columns, model = self.recipe.d2o, self.run.train.columns, self.model
        if settings is None or not draws_samples(self.recipe):
            return None
        instruction = max(map(len, instruction_ids(model.tokenizer, settings.instructions)))
        return Sampling(
            sequences=min(settings.batch_size, settings.samples * len(columns)),
            width=int(columns.prompt.max()) + instruction + settings.max_new_tokens,
            new_tokens=settings.max_new_tokens,
            cache_bytes=cache_bytes(model.config, model.arithmetic.itemsize),
            vocabulary=int(model.policy.get_input_embeddings().weight.shape[0]),
        )

    def _drawn(self) -> SampledTokens | None:
        """Return what a process draws for negatives to be held against, all as long as they may become."""
        settings, run = self.recipe.d2o, self.run
        if settings is None or not draws_samples(self.recipe):
            return None
        splits = [split.columns for split in (run.train, run.held_out) if split is not None]
        rows, prompts = sum(map(len, splits)), sum(int(columns.prompt.sum()) for columns in splits)
        if settings.level == "instance":  # a row a sample
            rows, prompts = rows // settings.samples, prompts // settings.samples
        rows, prompts = math.ceil(rows / run.processes), prompts // run.processes
        if settings.online is not None:  # anew for every batch, once it is warm
            steps = max(run.plan.steps - settings.online.warmup, 0)
            again = steps * run.plan.micro_steps // run.plan.steps * run.rows_at_once
            rows, prompts = rows + again, round(prompts * (1 + again / max(rows, 1)))
        return SampledTokens(
            sequences=rows * settings.samples,
            prompt_tokens=prompts * settings.samples,
            new_tokens=rows * settings.samples * settings.max_new_tokens,
        )

    def _measured(self) -> Speed:
        """Measure this machine now; called at several moments, of which the best counts."""
        text = self.model.config.get_text_config()
        hidden = int(text.hidden_size)
        inner = int(getattr(text, "intermediate_size", None) or 4 * hidden)
        rows = min(max(int(self.run.positions), 1), MEASURED_ROWS)
        return measure_speed(self.arguments.device, self.model.arithmetic, (rows, hidden, inner))

    def _time(self, usual: DryStep, shape: BatchShape, speed: Speed) -> Facts:
        synth = _tokens(self.synth, self.model)
        taken = duration(
            self.run.plan,
            usual,
            shape.sequences * shape.width,
            speed,
            counts=self.counts,
            eval_tokens=self.run.eval_tokens,
            synth=synth,
            generation=_tokens(self.recipe.evaluation.generation, self.model),
            drawn=self._drawn(),
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

    def largest(self, split: PlannedSplit, *, train: bool = True, model: PlannedModel | None = None) -> DryStep:
        """Return a step of the largest batch that a split can have; see :meth:`step`."""
        limit = length_limit(self.model.policy, self.recipe.data.max_length)
        beside = split.beside(split.widest)
        mismatched = split.widest_mismatched(limit)
        return self.step(split.widest, mismatched=mismatched, beside=beside, train=train, model=model)

    def step(
        self,
        shape: BatchShape,
        *,
        mismatched: BatchShape | None,
        beside: BatchShape | None = None,
        train: bool = True,
        model: PlannedModel | None = None,
    ) -> DryStep:
        """Return a step without numbers; a rough one, with a warning, where it cannot be followed.

        Args:
            shape: of the batch.
            mismatched: of mismatched rows, None for none.
            beside: of rows that the policy alone sees, in a forward of their own; None for none.
            train: whether it is a step of training or of an evaluation.
            model: models in other types than the run's.
        """
        recomputed = checkpointing(self.recipe)
        model = self.model if model is None else model
        if beside is not None:
            alone = replace(model, reference="none", other=None)
            own = self.step(shape, mismatched=mismatched, train=train, model=model)
            return own.beside(self.step(beside, mismatched=None, train=train, model=alone))
        try:
            return dry_step(
                model.policy,
                shape,
                reference=model.reference,
                other=model.other,
                train=train,
                checkpointing=recomputed,
                accumulate=self.arguments.gradient_accumulation_steps > 1,
                autocast=model.autocast,
                mismatched=mismatched,
            )
        except Exception as error:  # a model's own code may do anything
            reason = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            caution = f"memory and time are rough: a step cannot be followed without numbers ({reason})"
            self.warnings += [caution] if caution not in self.warnings else []
            return rough_step(
                model.config,
                self.counts,
                shape,
                referred=model.reference != "none",
                train=train,
                checkpointing=recomputed,
                mismatched=mismatched,
            )


def _tokens(settings: SynthSettings | GenerationSettings | None, model: PlannedModel) -> SampledTokens | None:
    return None if settings is None else sampled_tokens(settings, model.tokenizer)[0]
