"""A planned run on GPUs that are not here: memory of one of them and time under each engine, and which to choose."""

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch

from align.models.dry_step import DryStep
from align.models.footprint import GIB, Copies, Footprint, Stage, advice, compared
from align.models.gpus import Gpus
from align.models.machine import Memory
from align.models.shares import (
    ENGINES,
    RESERVE,
    SHARDS_WEIGHTS,
    EngineName,
    Share,
    Training,
    buffers,
    gathered,
    share,
    training_of,
    updating,
)
from align.models.traffic import Passes, StepTime, step_time, traffic
from align.report.console import stage
from align.trainers.combinations import checkpointing
from align.trainers.costs import Costs, PlannedRun
from align.trainers.planned import computing_in

Facts = dict[str, Any]

SYNC_EACH = "trainer.accelerator_config={gradient_accumulation_kwargs: {sync_each_batch: true}}"
"""What makes FSDP2 reduce, and so shard, gradients after every batch of a step."""
NOTED = 0.02
"""Share of a GPU's memory from which whole gradients are worth a note."""
SEVERAL_NODES = "on every node, with the options that docs/scaling.md names"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Followed:
    """Steps of the widest batches in one set of number types, followed without numbers."""

    training: DryStep
    evaluation: DryStep | None


class Scaling:
    """Memory and time of a run on GPUs, engine by engine.

    Args:
        costs: of the run, whose number types are those of GPUs.
        gpus: where it is planned.
        words: recipe and overrides, as they are given to ``scripts/train.py``.
    """

    def __init__(self, costs: Costs, gpus: Gpus, words: Sequence[str]) -> None:
        self.costs, self.run, self.gpus, self.words = costs, costs.run, gpus, words
        model, arguments = costs.model, costs.arguments
        self.sharded_type = model.autocast
        second = model.other if model.other is not None else model.policy
        self.training = training_of(
            model.policy,
            second if costs.reference_bytes else None,
            optim=costs.run.optim,
            mixed=model.autocast.itemsize if model.autocast is not None else None,
            accumulates=arguments.gradient_accumulation_steps > 1,
            reduces_each=reduces_each(arguments),
        )
        self.engines = [name for name in ENGINES if not (self._whole and name in SHARDS_WEIGHTS)]

    def facts(self) -> Facts:
        """Return the section ``gpus``; warnings go to those of the costs."""
        loaded, cast, usual = self._follow()
        steps = {name: loaded if name == "ddp" else cast for name in self.engines}
        plans = {name: self._footprint(name, steps[name]) for name in self.engines}
        rows = [self._row(name, plans[name], self._time(name, usual)) for name in self.engines]
        chosen = recommended(rows)
        least = min(self.engines, key=lambda name: plans[name].total)
        ways = self._advice(least, plans[least], steps[least].training) if chosen is None else []
        self._warn(plans[least], least, chosen)
        return {
            **asdict(self.gpus),
            "memory_bytes": int(self.gpus.memory * GIB),
            "nodes": self.gpus.nodes,
            "rows": self.run.rows_at_once,
            "step_flops": usual.work.flops * self.batches,
            "evaluation_seconds": self._evaluation_seconds(usual),
            "engines": rows,
            "recommended": chosen,
            "command": None if chosen is None else self.command(chosen),
            "several_nodes": SEVERAL_NODES if self.gpus.nodes > 1 else None,
            "advice": [{"engine": least, "change": text, "saves_bytes": saved} for text, saved in ways],
        }

    @property
    def _whole(self) -> str | None:
        """What needs a policy that each process holds whole; None for nothing."""
        recipe, model = self.run.recipe, self.run.recipe.model
        asked: dict[str, Any] = {"model.reference_sync": model.reference_sync, "model.quantization": model.quantization}
        asked |= {"spo": recipe.spo, "d2o": recipe.d2o}
        return next((name for name, value in asked.items() if value is not None), None)

    @property
    def batches(self) -> float:
        """Batches of an optimiser step on one GPU."""
        return self.run.plan.micro_steps / self.run.plan.steps

    def command(self, engine: str) -> str:
        """Return what starts the run."""
        nodes = f" --num_machines {self.gpus.nodes}" if self.gpus.nodes > 1 else ""
        if nodes and engine.startswith("zero"):  # else accelerate hands over to a launcher that needs ssh
            nodes += " --deepspeed_multinode_launcher standard"
        launch = f"accelerate launch --config_file accelerate_configs/{engine}.yaml --num_processes {self.gpus.count}"
        return f"{launch}{nodes} scripts/train.py {shlex.join(self.words)}"

    # ---- memory ------------------------------------------------------------------------------------------------

    def _follow(self) -> tuple[_Followed, _Followed, DryStep]:
        """Follow steps under autocast, as DDP takes them, with cast weights, as the others do, and an average one."""
        costs, run = self.costs, self.run

        def followed(model: Any) -> _Followed:
            held_out = run.held_out
            evaluation = None if held_out is None else costs.largest(held_out, train=False, model=model)
            return _Followed(training=costs.largest(run.train, model=model), evaluation=evaluation)

        with stage("following training steps without numbers"):
            model = costs.model
            loaded = followed(model)
            cast = loaded
            if self.sharded_type is not None:
                model = computing_in(model, self.sharded_type)
                cast = followed(model)
            usual = costs.step(run.train.usual, mismatched=run.train.usual_mismatched, model=model)
        return loaded, cast, usual

    def _footprint(self, engine: EngineName, steps: _Followed) -> Footprint:
        processes, training = self.gpus.count, self.training
        held = share(engine, processes, training)
        base = {"reserve": RESERVE, "weights": held.weights, "reference copy": held.reference}
        base |= {"optimiser state": held.optimiser}
        passing = buffers(engine, processes, training)
        kept = {"gradient buckets": passing["gradient buckets"]} if engine in ("ddp", "zero3") else {}
        activations = at_work(engine, steps.training)
        working = {"gradients": held.gradients, **passing, "activations": activations}
        stages = [Stage(name="training", parts={**base, **working})]
        if extra := updating(engine, processes, training):
            update = {"gradients": -(-held.gradients // processes) if engine == "zero1" else held.gradients}
            stages.append(Stage(name="optimiser step", parts={**base, **kept, **update, "float32 gradients": extra}))
        if steps.evaluation is not None:
            forward = {"gathered weights": gathered(engine, training), "activations": steps.evaluation.peak}
            stages.append(Stage(name="evaluation", parts={**base, **kept, **forward}))
        stages += self._sampling(engine, {**base, **kept})
        unknown = f"optimiser state: how much {self.run.optim} keeps is not known here"
        return Footprint(stages=stages, unknown=[unknown] if self.costs.optimiser_bytes is None else [])

    def _sampling(self, engine: EngineName, base: dict[str, int]) -> list[Stage]:
        """Return the stages that sample, on the first GPU alone and from whole models, whatever shards them."""
        costs, stages = self.costs, []
        copy = costs.counts.parameters * costs.model.precision.sampling.itemsize
        if (synth := costs.sampling(costs.synth)) is not None:
            parts = {"reserve": RESERVE, "sampling copy": copy, "decoding": synth.decoding}
            stages.append(Stage(name="making pairs", parts=parts))
        if (drawing := costs.drawing()) is not None:
            parts = {"reserve": RESERVE, "weights": costs.counts.weight_bytes, "reference copy": costs.reference_bytes}
            stages.append(Stage(name="drawing samples", parts={**parts, "decoding": drawing.decoding}))
        if (generation := costs.sampling(costs.recipe.evaluation.generation)) is not None:
            # Where weights are sharded, copies are made of a model in main memory.
            whole = 0 if engine in SHARDS_WEIGHTS else costs.counts.weight_bytes
            copies = Copies(policy=whole, reference=costs.reference_bytes, sampling=copy)
            stages.append(Stage(name="before and after", parts={**base, **compared(copies, generation)}))
        return stages

    def _advice(self, engine: EngineName, plan: Footprint, step: DryStep) -> list[tuple[str, int]]:
        """Return what to change first where nothing fits, for the engine that needs least, the most effective first."""
        recipe, parts = self.run.recipe, plan.peak.parts
        ways = advice(
            plan,
            step,
            lora=recipe.model.lora is not None,
            checkpointing=checkpointing(recipe),
            rows=self.run.rows_at_once,
            copied=self.run.copies_adapters,
            sharded=engine != "ddp",
        )
        if engine in SHARDS_WEIGHTS:
            shared = sum(parts.get(name, 0) for name in ("weights", "reference copy", "optimiser state", "gradients"))
            ways.append((f"twice as many GPUs ({2 * self.gpus.count})", shared // 2))
        return sorted(ways, key=lambda way: -way[1])

    # ---- time --------------------------------------------------------------------------------------------------

    def _time(self, engine: EngineName, usual: DryStep) -> StepTime:
        computing = usual.work.flops * self.batches / self.gpus.flops
        last = usual.backward.flops / usual.work.flops / self.batches
        sent = traffic(engine, self.training, passes_of(self.run, self.training, self.batches, last))
        return step_time(sent, computing, self.gpus)

    def _evaluation_seconds(self, usual: DryStep) -> float:
        shape = self.run.train.usual
        a_token = usual.forwards.flops / (shape.sequences * shape.width)
        return self.run.plan.evaluations * self.run.eval_tokens * a_token / self.gpus.flops

    # ---- what is said ------------------------------------------------------------------------------------------

    def _row(self, engine: EngineName, plan: Footprint, time: StepTime) -> Facts:
        held = share(engine, self.gpus.count, self.training)
        memory = Memory(
            kind="GPU memory",
            available=int(self.gpus.memory * GIB),
            total=int(self.gpus.memory * GIB),
            source="--gpu-memory",
        )
        return {
            "engine": engine,
            "share": asdict(held),
            "stages": {each.name: dict(each.parts) for each in plan.stages},
            "peak_stage": plan.peak.name,
            "peak_bytes": plan.total,
            "verdict": plan.verdict(memory),
            **{f"{name}_seconds": seconds for name, seconds in asdict(time).items()},
            "step_seconds": time.total,
            "training_seconds": time.total * self.run.plan.steps,
            "note": self._note(engine, held),
        }

    def _note(self, engine: EngineName, held: Share) -> str | None:
        matters = held.gradients > NOTED * self.gpus.memory * GIB
        if engine == "fsdp2" and self.training.holds_whole_gradients and matters:
            return f"gradients stay whole between the batches of a step; {SYNC_EACH} shards them after each"
        return None

    def _warn(self, plan: Footprint, engine: str, chosen: str | None) -> None:
        warnings = self.costs.warnings
        if chosen is None:
            needed = f"{engine}, which needs least, needs {plan.total / GIB:.1f} GiB"
            warnings.append(f"memory: no engine fits GPUs of {self.gpus.memory:g} GiB; {needed}")
        warnings += plan.unknown
        if self.costs.model.arithmetic == torch.float32:
            warnings.append(
                "training would multiply in float32, for which --gpu-tflops is not the GPU's peak in bfloat16: leave "
                "model.dtype out, or give the figure for float32"
            )
        if self._whole is not None:
            warnings.append(f"fsdp2 and zero3 are left out: {self._whole} needs a policy that each process holds whole")


def passes_of(run: PlannedRun, training: Training, batches: float, last_backward: float) -> Passes:
    """Return how often a batch's step reads weights: forward, backward, the reference's forward, mismatched rows'."""
    off, again = run.model.reference == "adapter_off", run.train.mismatched is not None
    return Passes(
        batches=batches,
        policy=2 + off + again * (1 + off),
        reference=0 if training.reference is None else 1 + again,
        last_backward=last_backward,
    )


def at_work(engine: EngineName, step: DryStep) -> int:
    """Return the bytes of activations: what is there beside gradients when there is most of both."""
    keeps_gradients = engine in ("ddp", "zero1")  # whole until the optimiser's step
    return max(step.peak - step.gradients, 0) if keeps_gradients else step.working


def recommended(rows: Sequence[Facts]) -> EngineName | None:
    """Return the first engine that fits, else the first that is tight, else None."""
    for verdict in ("fits", "tight"):
        for row in rows:
            if row["verdict"] == verdict:
                return row["engine"]  # type: ignore[no-any-return]
    return None


def reduces_each(arguments: Any) -> bool:
    """Whether a trainer's arguments ask for gradients to be reduced after every batch of a step."""
    given = getattr(arguments.accelerator_config, "gradient_accumulation_kwargs", None) or {}
    return bool(given.get("sync_each_batch", False))
