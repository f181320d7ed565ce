"""Everything a user wants to know of a recipe before anything heavy: facts as plain data, which a page is made of."""

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from transformers import TrainingArguments

from align.data.row_columns import RowColumns, read_columns
from align.data.statistics import (
    Drawing,
    batches_of,
    leak_between,
    lengths_of,
    mismatched_batches_of,
    places_of,
    repeats_in,
)
from align.models.adapters import has_adapter
from align.models.gpus import Gpus
from align.models.load import describe_weights
from align.models.skeleton import dropouts
from align.objectives.mixture import name_of
from align.recipe.schema import Recipe
from align.recipe.trainer_arguments import training_arguments
from align.recipe.trainer_fields import DEFAULTS
from align.report.console import stage
from align.sampling.self_samples import check_room
from align.trainers.check import check
from align.trainers.combinations import cautions
from align.trainers.costs import Costs, PlannedRun, PlannedSplit
from align.trainers.folder import RunFolder
from align.trainers.forecast import Schedule, checkpoint_bytes, schedule
from align.trainers.planned import PlannedModel, PlannedRows, check_vocabulary, plan_model, plan_rows
from align.trainers.preference import length_limit
from align.trainers.scaling import Scaling
from align.trainers.sections import draws_samples, moving_bytes
from align.trainers.unpaired_cautions import batch_cautions, label_cautions

Facts = dict[str, Any]


def validate(
    recipe: Recipe,
    name: str,
    *,
    processes: int | None = None,
    gpus: Gpus | None = None,
    words: Sequence[str] = ("RECIPE",),
) -> Facts:
    """Return what a run of a recipe would be: model, data, steps, memory, time, and warnings.

    Rows are prepared and kept for training. No weights are loaded, and nothing is written to the run folder.

    Args:
        recipe: a loaded recipe.
        name: what a folder made from a digest begins with.
        processes: that will train together; as launched where absent.
        gpus: elsewhere, that the run is planned on; this machine's memory and speed are then left out.
        words: recipe and overrides, as they are given to ``scripts/train.py``, for the command that starts the run.

    Raises:
        ValueError: naming everything that cannot work, as far as one mistake does not hide another.
    """
    count = _processes(processes, gpus)
    check(recipe, gpus=None if gpus is None else gpus.count)
    folder = RunFolder.claim(recipe, name)
    _check_writable(folder.path)
    # What only a GPU can do is not asked of this machine.
    arguments = training_arguments(recipe, folder.path, **({} if gpus is None else {"use_cpu": True, "tf32": None}))
    with stage("reading the model's config and tokenizer"):
        model = plan_model(recipe, arguments, on_gpus=gpus is not None)
    with plan_rows(recipe, model, folder.path) as rows:
        return _Validation(recipe, arguments, folder, model, rows, count, gpus).facts(name, words)


def _processes(asked: int | None, gpus: Gpus | None) -> int:
    if gpus is not None and asked is not None:
        raise ValueError("--processes beside --gpus: a run on GPUs has one process for each; leave --processes out")
    count = gpus.count if gpus is not None else asked
    count = int(os.environ.get("WORLD_SIZE", "1")) if count is None else count
    if count < 1:
        raise ValueError(f"--processes must be at least 1, got {count}")
    return count


class _Validation:
    """One pass over a planned run; its attributes are what later sections need of earlier ones."""

    def __init__(
        self,
        recipe: Recipe,
        arguments: TrainingArguments,
        folder: RunFolder,
        model: PlannedModel,
        rows: PlannedRows,
        processes: int,
        gpus: Gpus | None,
    ) -> None:
        self.recipe, self.arguments, self.folder = recipe, arguments, folder
        self.model, self.rows, self.processes, self.gpus = model, rows, processes, gpus
        self.warnings = cautions(recipe, here=gpus is None)
        self.train = read_columns(rows.train, "training")
        self.held_out = read_columns(rows.held_out, "held-out") if rows.held_out is not None else None
        self.warnings += check_vocabulary(model, max(c.largest_id for c in self._splits().values()), rows.noun)
        held = len(self.held_out or ())
        if draws_samples(recipe) and not rows.synthetic:
            assert recipe.d2o is not None
            for split, columns in ((rows.train, self.train), (rows.held_out, self.held_out)):
                if split is not None and columns is not None:
                    longest = split[int(np.argmax(columns.prompt))]["prompt_ids"]
                    check_room(model.config, model.tokenizer, longest, recipe.d2o)
        self.plan: Schedule = schedule(arguments, len(self.train), held, processes, noun=rows.noun)
        self.run = PlannedRun(
            recipe=recipe,
            arguments=arguments,
            model=model,
            plan=self.plan,
            train=self._planned_train(),
            held_out=self._planned_held_out(),
            synthetic=rows.synthetic,
            processes=processes,
        )
        self.costs = Costs(self.run)

    def _planned_train(self) -> PlannedSplit:
        drawing = Drawing(
            size=self.arguments.train_batch_size,
            order=str(self.recipe.trainer.get("train_sampling_strategy", "random")),
            accumulate=self.arguments.gradient_accumulation_steps * self.processes,
            most=self.plan.micro_steps * self.processes,
        )
        unpaired = self.train.desirable is not None
        return self._planned(self.train, drawing, tuple(self.train.sides) if unpaired else self.recipe.objective.reads)

    def _planned_held_out(self) -> PlannedSplit | None:
        if self.held_out is None:
            return None
        drawing = Drawing(size=self.arguments.eval_batch_size, order="sequential")
        return self._planned(self.held_out, drawing, tuple(self.held_out.sides))  # both sides, whatever is read

    def _planned(self, columns: RowColumns, drawing: Drawing, sides: tuple[str, ...]) -> PlannedSplit:
        if self.recipe.d2o is not None and "chosen" in self.recipe.objective.reads:
            alone = self.recipe.d2o.level == "instance"  # then each row has one sample; plan_rows has repeated it
            sides *= 2 if alone else 1 + self.recipe.d2o.samples  # not drawn yet: taken to be as long as the negatives
        limit = length_limit(self.model.policy, self.recipe.data.max_length)
        mismatched = self.recipe.objective.needs_mismatched
        return PlannedSplit(
            columns=columns,
            size=drawing.size,
            sides=sides,
            batches=batches_of(columns, drawing, sides),
            mismatched=mismatched_batches_of(columns, drawing, limit) if mismatched else None,
            versions=self._versions(columns),
        )

    def _versions(self, columns: RowColumns) -> int:
        """Return the versions that a row brings at most, of a pair's two responses or of a single one."""
        spo = self.recipe.spo
        return 0 if spo is None else spo.versions.degrees if columns.desirable is not None else spo.rows

    def facts(self, name: str, words: Sequence[str]) -> Facts:
        """Return all sections; the warnings come last, when all are known."""
        sections = {
            "recipe": name,
            "model": self._model(),
            "reference": self._reference(),
            "output": self._output(),
            "data": self._data(),
            "lengths": {split: asdict(lengths_of(columns)) for split, columns in self._splits().items()},
            "batches": asdict(self.run.train.batches),
            "duplicates": self._duplicates(),
            "steps": self._steps(),
            "speed": self._speed(),
        }
        gpus = self.gpus
        costs = self.costs.facts() if gpus is None else {"gpus": Scaling(self.costs, gpus, words).facts()}
        self._warn_of_steps()
        self._warn_of_completions()
        return {**sections, **costs, "warnings": [*self.warnings, *self.costs.warnings]}

    # ---- what is trained ---------------------------------------------------------------------------------------

    def _model(self) -> Facts:
        config, policy, path = self.model.config, self.model.policy, self.recipe.model.path
        notes = [note for note in (describe_weights(path),) if note]
        if found := dropouts(config):
            says = ", ".join(f"{key} {value:g}" for key, value in found.items())
            notes.append(f"dropout of the config ({says}) is set to 0")
        positions = getattr(config.get_text_config(), "max_position_embeddings", None)
        wanted = self.recipe.data.max_length
        if positions is not None and wanted is not None and wanted > positions:
            self.warnings.append(
                f"data.max_length={wanted} is beyond the model's {positions} positions; {self.rows.noun}s are cut to "
                f"{positions}"
            )
        return {
            "path": path,
            "kind": type(policy.get_base_model() if has_adapter(policy) else policy).__name__,
            **asdict(self.costs.counts),
            "lora": asdict(self.recipe.model.lora) if self.recipe.model.lora is not None else None,
            "precision": self.model.precision.reason,
            "positions": positions,
            "vocabulary": int(policy.get_input_embeddings().weight.shape[0]),
            "objective": name_of(self.recipe.objective),
            "notes": notes,
        }

    def _reference(self) -> Facts:
        kind, sync = self.model.reference, self.recipe.model.reference_sync
        says = {
            "none": "the objective compares with none",
            "adapter_off": "the policy with its adapters switched off: no second copy of the weights",
            "base": "a frozen copy of the policy as it is before training",
        }
        told = says.get(kind, "a model of its own")
        if sync is not None:
            told = "a copy of the policy as it is before training" if kind == "base" else told
            told += f"; every {sync.every:,} steps it becomes {sync.alpha:g} policy + {1 - sync.alpha:g} reference"
        return {"kind": kind, "says": told, "copy_bytes": self.costs.reference_bytes}

    def _output(self) -> Facts:
        path, last = self.folder.path, self.folder.last_checkpoint()
        state = f"continues from {last.name}" if last is not None else "new"
        if self.folder.summary() is not None:
            state = "finished"
            self.warnings.append(f"{path} holds this recipe's finished run: align train would do nothing")
        kept = moving_bytes(self.recipe, self.costs.counts)
        each = checkpoint_bytes(self.costs.counts, self.costs.optimiser_bytes) + kept
        needed = each * self.plan.kept + checkpoint_bytes(self.costs.counts, 0)
        free = shutil.disk_usage(_existing(path)).free if self.gpus is None else None
        if free is not None and needed > free:
            self.warnings.append(
                f"checkpoints and the model need {needed / 2**30:.1f} GiB of disk, {free / 2**30:.1f} GiB are free: "
                "lower trainer.save_total_limit, or name another output.dir"
            )
        return {
            "folder": str(path),
            "state": state,
            "checkpoints": self.plan.checkpoints,
            "kept": self.plan.kept,
            "checkpoint_bytes": each,
            "disk_needed": needed,
            "disk_free": free,
        }

    # ---- data and steps ----------------------------------------------------------------------------------------

    def _data(self) -> Facts:
        reports = {split: _report(report) for split, report in self.rows.reports.items()}
        held_by = "data.eval" if self.recipe.data.eval else "data.eval_fraction" if self.held_out is not None else None
        return {
            "noun": self.rows.noun,
            "rows": reports,
            "sizes": {split: len(columns) for split, columns in self._splits().items()},
            "desirable": {
                split: int(columns.desirable.sum())
                for split, columns in self._splits().items()
                if columns.desirable is not None
            },
            "held_out_by": held_by,
            "upper_bound": self.rows.synthetic,
        }

    def _duplicates(self) -> Facts:
        found: Facts = {}
        wheres = {"train": places_of(self.rows.train)}
        if self.rows.held_out is not None:
            wheres["held_out"] = places_of(self.rows.held_out)
        if not self.rows.synthetic:  # rows that are not made yet all look alike
            for split, columns in self._splits().items():
                found[split] = asdict(repeats_in(columns, wheres[split]))
                self._warn_of_repeats(split, found[split])
        if self.held_out is not None:
            leak = leak_between(self.train, self.held_out, wheres["held_out"])
            found["across"] = asdict(leak)
            if leak.prompts:
                measured = "accuracy" if self.rows.noun == "pair" else "AUC"
                self.warnings.append(
                    f"{leak.prompts:,} held-out {self.rows.noun}s ({100 * leak.share:.1f} %) have a prompt that is "
                    f"trained on ({', '.join(leak.places)}): held-out {measured} would flatter; hold out by prompt "
                    "with data.eval_fraction, or remove them"
                )
        return found

    def _warn_of_repeats(self, split: str, found: Mapping[str, Any]) -> None:
        if found["contradicted"]:
            how = "chosen and rejected swapped" if self.rows.noun == "pair" else "the other label"
            self.warnings.append(
                f"{found['contradicted']:,} {split} {self.rows.noun}s are also there with {how} "
                f"({', '.join(found['places'])})"
            )

    def _steps(self) -> Facts:
        plan, train = self.plan, self.run.train
        return {
            **asdict(plan),
            "tokens": round(plan.micro_steps * train.batches.real_tokens * self.processes),
            "positions": round(plan.micro_steps * self.run.positions * self.processes),
            "sides": list(train.sides),
            "versions": train.versions,
            "mismatched": train.mismatched is not None,
            "processes": self.processes,
            "upper_bound": self.rows.synthetic and self.arguments.max_steps <= 0,
        }

    def _speed(self) -> Facts | None:
        """Return what sharing and packing are expected to save of a batch; None where they are off.

        Only prompts are taken to be shared: what responses begin with in common comes on top.
        """
        speed, train = self.recipe.speed, self.run.train
        if speed.sharing is False and speed.packing is False:
            return None
        columns, rows = train.columns, min(train.size, len(train.columns))
        completions = sum(columns.sides[side] for side in train.sides)
        prompts = columns.prompt * (1 if speed.sharing is not False else len(train.sides))
        padded = train.sequences * train.batches.mean_width
        computed = rows * float(np.mean(prompts + completions))
        if speed.packing is False:
            computed = rows * float(np.max(prompts + completions))
        return {
            "padded": round(padded),
            "computed": round(computed),
            "saved": round(max(0.0, 1 - computed / padded), 3),
        }

    def _warn_of_steps(self) -> None:
        plan, arguments = self.plan, self.arguments
        if plan.warmup >= plan.steps:
            self.warnings.append(
                f"trainer.warmup_steps comes to {plan.warmup} of {plan.steps} steps: the learning rate never reaches "
                "its value; lower it"
            )
        for key, every in (("save", arguments.save_steps), ("eval", arguments.eval_steps)):
            strategy = getattr(arguments, f"{key}_strategy")
            asked = self.recipe.trainer.get(f"{key}_steps") != DEFAULTS.get(f"{key}_steps")
            by_steps = str(getattr(strategy, "value", strategy)) == "steps"
            if asked and by_steps and every is not None and every > plan.steps:
                self.warnings.append(f"trainer.{key}_steps={every:g} is more than the run's {plan.steps} steps")

        d2o = self.recipe.d2o
        syncs = {"model.reference_sync": self.recipe.model.reference_sync}
        if d2o is not None:
            syncs["d2o.samples_reference_sync"] = d2o.samples_reference_sync
        for key, sync in syncs.items():
            if sync is not None and sync.every > plan.steps:
                self.warnings.append(
                    f"{key}.every={sync.every} is more than the run's {plan.steps} steps: the reference would never "
                    "move"
                )
        if d2o is not None and d2o.online is not None and d2o.online.warmup >= plan.steps:
            self.warnings.append(
                f"d2o.online.warmup={d2o.online.warmup} is no less than the run's {plan.steps} steps: no sample would "
                "be drawn of the policy as it trains"
            )

    def _warn_of_completions(self) -> None:
        if self.train.desirable is None or self.recipe.d2o is not None:  # negatives alone are meant there
            return
        objective, rows, held_out = self.recipe.objective, len(self.train), len(self.held_out or ())
        if not self.rows.synthetic:
            self.warnings += label_cautions(objective, self.train)
        self.warnings += batch_cautions(objective, rows, held_out, self.plan, self.arguments, self.processes)

    def _splits(self) -> dict[str, RowColumns]:
        return {"train": self.train} | ({"held_out": self.held_out} if self.held_out is not None else {})


def _report(report: Any) -> Facts:
    return {**asdict(report), "truncated_share": report.truncated_share}


def _existing(path: Path) -> Path:
    """Return the nearest folder that is there: the path itself or one above it."""
    return next(folder for folder in (path, *path.parents) if folder.is_dir())


def _check_writable(path: Path) -> None:
    folder = _existing(path)
    if not os.access(folder, os.W_OK | os.X_OK):
        raise ValueError(f"output.dir {path} cannot be written: no permission in {folder}; name another output.dir")
