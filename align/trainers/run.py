"""A recipe from start to end: data, model, training, held-out evaluation, before and after, summary."""

import copy
import importlib.metadata
import math
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import datasets
import torch
from transformers import PreTrainedTokenizerBase, TrainingArguments

from align.data.bad_rows import copy_skipped
from align.data.cache import cache_root
from align.data.negatives import negatives_of
from align.data.prepare import PreparedPairs, prepare_pairs, prepare_unpaired, split_by_prompt
from align.data.store import describe, noun_of
from align.evaluation.comparison import samples_jsonl, samples_markdown, side_by_side
from align.evaluation.generation import BeforeAfter, before_and_after
from align.models.adapters import has_adapter, lora_config
from align.models.load import Source, describe_weights, load_model, load_tokenizer
from align.models.precision import Precision, choose_precision
from align.models.quantise import is_quantised
from align.models.sharding import is_partitioned, kept_whole
from align.objectives.mixture import name_of
from align.recipe.paths import REFERENCES
from align.recipe.resolve import digest
from align.recipe.schema import OutputSettings, Recipe, SourceSettings
from align.recipe.trainer_arguments import training_arguments
from align.report.console import say, stage
from align.report.curves import draw_comparison, draw_curves
from align.sampling.synth import synthesise, write_pairs
from align.trainers.check import check, reads_completions, trains_on_completions
from align.trainers.d2o import D2OTrainer
from align.trainers.folder import MODEL_FOLDER, RunFolder, set_aside
from align.trainers.pair import PairTrainer
from align.trainers.planned import check_tokens
from align.trainers.preference import PreferenceTrainer, length_limit
from align.trainers.sections import check_sections, other_models
from align.trainers.spo import SPOTrainer, UnpairedSPOTrainer
from align.trainers.unpaired import UnpairedTrainer


def run_recipe(recipe: Recipe, *, name: str = "run") -> dict[str, Any]:
    """Train what a recipe says and return the run's summary, which is also in ``summary.json``.

    The same recipe called again continues a run that was cut off, and returns the summary of a finished one.

    Args:
        recipe: a loaded recipe (:func:`align.load_recipe`).
        name: what the run folder is called where the recipe names none.

    Raises:
        ValueError: if something in the recipe, the data or the model cannot work.
    """
    check(recipe)
    folder = RunFolder.claim(recipe, name)
    if (finished := folder.summary()) is not None:
        say(f"{folder.path} holds this recipe's finished run; nothing to do")
        return finished
    with folder.held():
        run = Run(recipe, folder)
        with run.main_first():
            folder.write_recipe(recipe)
        say(f"run folder: {folder.path}")
        return run.execute()


def precompute_recipe(recipe: Recipe) -> dict[str, Any]:
    """Have the reference's log-probabilities of a recipe's rows on disk, and return what was done.

    Args:
        recipe: a loaded recipe; it need not be one that is trained later, only its model and rows are read.

    Raises:
        ValueError: if something in the recipe, the data or the model cannot work, or there is nothing to keep.
    """
    check(recipe)
    if not recipe.objective.needs_reference:
        raise ValueError(
            f"objective {name_of(recipe.objective)!r} compares with no reference: there is nothing to keep"
        )
    aside = cache_root() / "precompute" / digest(recipe)
    recipe = replace(recipe, output=OutputSettings(dir=str(aside)))
    with set_aside(recipe, "precompute") as folder:
        return Run(recipe, folder).precompute()


@dataclass(frozen=True, slots=True)
class _Pairs:
    """Prepared data: to train on, held out, and what preparing came to."""

    train: datasets.Dataset
    held_out: datasets.Dataset | None
    preparation: dict[str, str]

    @property
    def noun(self) -> str:
        """What the rows are called: pairs or completions."""
        return noun_of(self.train.column_names) + "s"


class Run:
    """One pass through a recipe; its attributes are what later stages need of earlier ones."""

    def __init__(self, recipe: Recipe, folder: RunFolder) -> None:
        self.recipe = recipe
        self.folder = folder
        self.started = time.perf_counter()
        self.arguments: TrainingArguments = training_arguments(recipe, folder.path)
        self.precision = self._choose_precision()
        self.source = _source(recipe, self.precision, self.arguments.device)

    def execute(self) -> dict[str, Any]:
        """Train, evaluate, save, and return the summary."""
        model, tokenizer = self._loaded()
        say(f"precision: {self.precision.reason}")
        pairs = self._data(model, tokenizer)
        _refuse_empty_epochs(len(pairs.train), pairs.noun, self.arguments)
        trainer = self._trainer(model, tokenizer, pairs)
        checkpoint = self.folder.last_checkpoint()
        if checkpoint is not None:
            say(f"continuing from {checkpoint.name}")
        trained = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        _refuse_lost_training(trainer)
        accuracy = last_evaluation(trainer) if pairs.held_out is not None else {}
        trainer.save_model(str(self.folder.path / MODEL_FOLDER))
        comparison = self._before_and_after(trainer, tokenizer)
        summary = self._summary(trainer, pairs, trained.metrics, accuracy, comparison)
        if trainer.is_world_process_zero():
            self._finish(summary, comparison)
        return summary

    def precompute(self) -> dict[str, Any]:
        """Load, prepare, and keep the reference's log-probabilities; train nothing."""
        trainer = self.prepared()
        keeper = trainer.keep_reference(asked=True)
        assert keeper is not None
        assert trainer.reference is not None
        rows = {name: len(rows) for name, rows in trainer.row_sets().items()}
        return {
            "reference": trainer.reference.description,
            "rows": rows,
            "computed": keeper.computed,
            "kept": len(keeper.store),
            "folder": str(keeper.store.folder),
            "seconds": round(time.perf_counter() - self.started, 1),
        }

    def prepared(self) -> PreferenceTrainer:
        """Load the model and prepare the rows, and return the trainer of both."""
        model, tokenizer = self._loaded()
        return self._trainer(model, tokenizer, self._data(model, tokenizer))

    def _loaded(self) -> tuple[Any, PreTrainedTokenizerBase]:
        """Load the policy and its tokenizer, and refuse what they cannot have before anything is sampled."""
        with stage(f"loading {self.recipe.model.path}"):
            tokenizer = load_tokenizer(self.source)
            model = load_model(self.source)
        check_sections(self.recipe, model.config, tokenizer)
        for key, path in other_models(self.recipe).items():
            check_tokens(key, replace(self.source, path=path, revision=None), tokenizer)
        return model, tokenizer

    # ---- stages ------------------------------------------------------------------------------------------------

    def _choose_precision(self) -> Precision:
        precision = choose_precision(
            self.recipe.model.dtype, self.arguments.device, lora=self.recipe.model.lora is not None
        )
        set_by_recipe = {"bf16", "fp16"} & self.recipe.trainer.keys()
        if precision.autocast and not set_by_recipe:
            self.arguments = training_arguments(self.recipe, self.folder.path, bf16=True)
        if set_by_recipe:
            return replace(precision, autocast=self.arguments.bf16, reason=precision.reason + ", as trainer says")
        return precision

    def _data(self, model: Any, tokenizer: PreTrainedTokenizerBase) -> "_Pairs":
        settings = self.recipe.data
        with self.main_first():
            train = self._prepare(settings.train, model, tokenizer, "training")
            held_out = self._prepare(settings.eval, model, tokenizer, "held-out") if settings.eval else None
        preparation = {"train": describe(train.report)}
        if held_out is not None:
            preparation["held_out"] = describe(held_out.report)
        for name, text in preparation.items():
            say(f"{name} data: {text}")
        if settings.eval_fraction:
            pairs = _Pairs(*split_by_prompt(train, settings.eval_fraction), preparation)
            say(f"held out by prompt: {len(pairs.held_out or ())} of {len(train.dataset)} {pairs.noun}")
            return pairs
        return _Pairs(train.dataset, held_out.dataset if held_out else None, preparation)

    def _prepare(
        self, sources: list[SourceSettings], model: Any, tokenizer: PreTrainedTokenizerBase, name: str
    ) -> PreparedPairs:
        files = [self._file_of(source, model, tokenizer, f"{name}-{i}") for i, source in enumerate(sources)]
        data = self.recipe.data
        limit = length_limit(model, data.max_length)
        prepare = prepare_unpaired if reads_completions(self.recipe) else prepare_pairs
        prepared = prepare(files, tokenizer, max_length=limit, truncation=data.truncation, on_bad_row=data.on_bad_row)
        if self.arguments.process_index == 0:
            skipped = copy_skipped(prepared.skipped_file, self.folder.path / f"skipped-{name}.jsonl")
            if skipped is not None:
                say(f"{name} data: bad rows are left out; they are in {skipped}")
        if self.recipe.d2o is None:
            return prepared
        return replace(prepared, dataset=negatives_of(prepared.dataset, f"{name} data"))

    def _file_of(
        self, source: SourceSettings, model: Any, tokenizer: PreTrainedTokenizerBase, name: str
    ) -> SourceSettings:
        """Return the source itself, or for pairs the model makes, a source that reads the file they are in."""
        if source.synth is None:
            return source
        file = self.folder.path / "pairs" / f"{name}.jsonl"
        if file.is_file():
            return replace(source, synth=None, path=str(file))
        apart = is_quantised(model) or any(map(is_partitioned, model.parameters()))
        sampled = self._whole(self.source) if apart else model
        with kept_whole():
            generator = sampling_copy(sampled, self.precision.sampling, self.arguments.device)
            pairs, report = synthesise(generator, tokenizer, source.synth)
        say(f"made {report}")
        write_pairs(file, pairs)
        return replace(source, synth=None, path=str(file))

    def _trainer(
        self,
        model: Any,
        tokenizer: PreTrainedTokenizerBase,
        pairs: "_Pairs",
    ) -> PreferenceTrainer:
        settings = self.recipe.model
        reference: Any = settings.reference
        if reference not in REFERENCES and self.recipe.objective.needs_reference:
            reference = load_model(replace(self.source, path=reference, revision=None))
        trainer, options = _trainer_of(self.recipe)
        if (path := other_models(self.recipe).get("d2o.samples_reference")) is not None:
            options["samples_reference"] = load_model(replace(self.source, path=path, revision=None))
        return trainer(
            model,
            self.arguments,
            peft_config=lora_config(settings.lora) if settings.lora else None,
            objective=self.recipe.objective,
            reference=reference,
            reference_sync=settings.reference_sync,
            train_dataset=pairs.train,
            eval_dataset=pairs.held_out,
            processing_class=tokenizer,
            evaluation=self.recipe.evaluation,
            speed=self.recipe.speed,
            **options,
        )

    def _before_and_after(self, trainer: PreferenceTrainer, tokenizer: PreTrainedTokenizerBase) -> BeforeAfter | None:
        settings = self.recipe.evaluation.generation
        if settings is None or not trainer.is_world_process_zero():
            return None
        trained = trainer.accelerator.unwrap_model(trainer.model)
        if trainer.engine.shards_weights or is_quantised(trained):  # what was saved is whole, or goes on whole weights
            trained = self._whole(replace(self.source, path=str(self.folder.path / MODEL_FOLDER), revision=None))
        kind, device = self.precision.sampling, self.arguments.device
        with kept_whole():
            aligned = sampling_copy(trained, kind, device)
            base = self._base(trained, kind, device)
            return before_and_after(base, aligned, tokenizer, settings, self.recipe.evaluation)

    def _whole(self, source: Source) -> Any:
        with kept_whole(), stage(f"loading {source.path}, to sample from"):
            return load_model(replace(source, quantisation=None))

    def _base(self, trained: Any, kind: torch.dtype, device: torch.device) -> Any:
        if has_adapter(trained):
            return sampling_copy(copy.deepcopy(trained).unload(), kind, device)
        return sampling_copy(self._whole(self.source), kind, device)

    # ---- results -----------------------------------------------------------------------------------------------

    def _summary(
        self,
        trainer: PreferenceTrainer,
        pairs: "_Pairs",
        training: dict[str, float],
        accuracy: dict[str, float],
        comparison: BeforeAfter | None,
    ) -> dict[str, Any]:
        notes = [note for note in (describe_weights(self.recipe.model.path),) if note]
        return {
            "folder": str(self.folder.path),
            "recipe_digest": digest(self.recipe),
            "objective": name_of(self.recipe.objective),
            "reference": trainer.reference.description if trainer.reference else "none",
            "start_margin": trainer.start_margin,
            "steps": trainer.state.global_step,
            "preparation": pairs.preparation,
            "train": {pairs.noun: len(pairs.train), **training},
            "held_out": accuracy,
            "generation": comparison.summary if comparison else {},
            "precision": self.precision.reason,
            "speed": trainer.speed.notes,
            "engine": asdict(trainer.engine),
            "notes": notes,
            "seconds": round(time.perf_counter() - self.started, 1),
            "peak_memory_gib": round(peak_memory_gib(), 2),
            "versions": {p: importlib.metadata.version(p) for p in ("align", "torch", "transformers", "peft")},
        }

    def _finish(self, summary: dict[str, Any], comparison: BeforeAfter | None) -> None:
        path = self.folder.path
        if comparison is not None:
            print(side_by_side(comparison.base, comparison.aligned))
            (path / "samples.md").write_text(samples_markdown(comparison.base, comparison.aligned), encoding="utf-8")
            (path / "samples.jsonl").write_text(samples_jsonl(comparison.base, comparison.aligned), encoding="utf-8")
            draw_comparison(comparison.summary, path)
        draw_curves(path)
        self.folder.write_summary(summary)

    @contextmanager
    def main_first(self) -> Iterator[None]:
        """Let the first process of a launch do what is inside before the others."""
        with self.arguments.main_process_first(local=False):
            yield


def _trainer_of(recipe: Recipe) -> tuple[type[PreferenceTrainer], dict[str, Any]]:
    """Return the class that trains a recipe, and what it takes beside what all take."""
    if recipe.d2o is not None:
        return D2OTrainer, {"d2o": recipe.d2o}
    if trains_on_completions(recipe):
        return (UnpairedTrainer, {}) if recipe.spo is None else (UnpairedSPOTrainer, {"spo": recipe.spo})
    of_pairs = {"diagnostics": recipe.diagnostics, "disentangle": recipe.disentangle}
    return (PairTrainer, of_pairs) if recipe.spo is None else (SPOTrainer, {**of_pairs, "spo": recipe.spo})


def _refuse_empty_epochs(rows: int, noun: str, arguments: TrainingArguments) -> None:
    batch = arguments.train_batch_size * arguments.world_size
    if arguments.dataloader_drop_last and rows < batch:
        raise ValueError(f"{rows} {noun} are fewer {noun} than one batch of {batch}, and dataloader_drop_last drops it")


def _refuse_lost_training(trainer: PreferenceTrainer) -> None:
    """Refuse to call a run finished whose loss is no number."""
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    if losses and not math.isfinite(losses[-1]):
        raise ValueError(
            f"the loss became {losses[-1]} (see metrics.jsonl); lower trainer.learning_rate, or look at the objective"
        )


def last_evaluation(trainer: PreferenceTrainer) -> dict[str, float]:
    """Return the held-out figures of the model as it is; those of the last step where it ended in an evaluation."""
    entries = [entry for entry in trainer.state.log_history if "eval_loss" in entry]
    if trainer.args.load_best_model_at_end or not entries or entries[-1]["step"] != trainer.state.global_step:
        return trainer.evaluate()
    return {name: value for name, value in entries[-1].items() if name.startswith("eval_")}


def sampling_copy(model: Any, dtype: torch.dtype, device: torch.device) -> Any:
    """Return a copy of a model to generate with: adapters merged, in a type the device is fast at."""
    duplicate = copy.deepcopy(model)
    merged = duplicate.merge_and_unload() if has_adapter(duplicate) else duplicate
    # Not frozen: on CPUs, a frozen head makes torch copy its weights for every row of a slice of hidden states.
    merged = merged.to(device=device, dtype=dtype).eval().requires_grad_(True)
    merged.config.use_cache = True
    return merged


def peak_memory_gib() -> float:
    """Return the process's largest resident memory so far, in GiB; on a GPU, the device's largest allocation."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated() / 2**30
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**30


def _source(recipe: Recipe, precision: Precision, device: torch.device) -> Source:
    model = recipe.model
    return Source(
        path=model.path,
        revision=model.revision,
        dtype=precision.weights,
        attn_implementation=model.attn_implementation,
        trust_remote_code=model.trust_remote_code,
        quantisation=model.quantization,
        arithmetic=torch.bfloat16 if precision.autocast else torch.float32,
        device=device,
    )
