"""What training on preferences shares, whatever its rows are: policy, objective, reference, preparation of data."""

import copy
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, TypeVar, cast

import datasets
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments, set_seed

from align.data.bad_rows import copy_skipped, skipped_beside
from align.data.packing import Packing, Row
from align.data.prepare import PreparedPairs
from align.data.store import describe
from align.models.adapters import add_adapter, has_adapter
from align.models.load import Source, disable_dropout, load_model, load_tokenizer, without_dropout
from align.models.quantise import is_quantised
from align.models.reference import (
    FrozenReference,
    KeptReference,
    Reference,
    moving_copy,
    resolve_reference,
)
from align.objectives.base import Objective
from align.objectives.dpo import DPO
from align.objectives.logps import SequenceLogps
from align.objectives.registry import OBJECTIVES
from align.recipe.paths import REFERENCES
from align.recipe.schema import EvaluationSettings
from align.recipe.speed import SpeedSettings
from align.recipe.sync import ReferenceSyncSettings
from align.report.console import say
from align.trainers.activations import Activations, LongestBatch, let_inputs_have_gradients
from align.trainers.check import refuse_shards
from align.trainers.comparing import ComparingTrainer
from align.trainers.few_rows import few_rows
from align.trainers.moving import MovingReference, load_reference, save_reference
from align.trainers.speed import Speed

Logps = TypeVar("Logps")
MOST_LATER = 16
"""Data sets that came later and are kept as they were prepared."""


class PreferenceTrainer(ComparingTrainer):
    """Abstract: trains a policy on preferences, compared with a reference where the objective needs one.

    Args:
        model: a causal language model, or the path or hub name of one.
        args: transformers' training arguments.
        objective: what is minimised, or the name of an objective with its defaults.
        reference: ``base``, ``adapter_off``, ``none``, a model, or a model's path; ``auto`` takes the adapters
            off where there are some, else a frozen copy, and nothing where the objective needs nothing.
        reference_sync: how the reference follows the policy while it trains (TR-DPO); None for a fixed one.
        train_dataset: rows in any of TRL's formats, or already prepared ones.
        eval_dataset: held-out rows in the same formats, or several sets by name.
        processing_class: the tokenizer; loaded with the model where that is a path.
        peft_config: adapters to train instead of all weights.
        max_length: longest prompt + completion in tokens; None is the model's own limit, which holds in any case.
        truncation: ``keep_start``, ``keep_end`` or ``drop``, for rows that are longer.
        on_bad_row: ``fail`` at the first row that cannot be used, or ``skip`` them and write them to
            ``skipped-<data set>.jsonl`` in the output folder.
        evaluation: level of intervals and the like.
        callbacks: transformers' callbacks.
        optimizers: an optimiser and a schedule of one's own.
        speed: what is computed once instead of twice; None for what works and pays.

    Raises:
        ValueError: if the parts do not fit, or a row cannot be used (naming it).
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str,
        args: TrainingArguments | None = None,
        *,
        objective: Objective | str | None = None,
        reference: str | PreTrainedModel = "auto",
        reference_sync: ReferenceSyncSettings | None = None,
        train_dataset: datasets.Dataset | None = None,
        eval_dataset: datasets.Dataset | dict[str, datasets.Dataset] | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        peft_config: LoraConfig | None = None,
        max_length: int | None = 1024,
        truncation: str = "keep_start",
        on_bad_row: str = "fail",
        evaluation: EvaluationSettings | None = None,
        callbacks: Sequence[TrainerCallback] | None = None,
        optimizers: tuple[Any, Any] = (None, None),
        speed: SpeedSettings | None = None,
    ) -> None:
        args = copy.copy(args) if args is not None else TrainingArguments("align_output")
        self.start_device = args.device  # before transformers has put anything anywhere
        set_seed(args.seed)  # before adapters are drawn; transformers seeds later
        policy, tokenizer = _policy(model, processing_class)
        disable_dropout(policy)
        if peft_config is not None:
            if has_adapter(policy):
                raise ValueError("the model has adapters already; pass it without peft_config to train them")
            policy = add_adapter(policy, peft_config)
        self.before_wrapping(policy)
        self.speed = Speed(speed, self.keeps_rows_apart(), policy)
        self.activations = Activations(self.speed.settings.checkpointing, args, policy)
        self.objective: Objective = self._checked(objective)
        self.evaluation = evaluation if evaluation is not None else EvaluationSettings()
        needed = self.objective.needs_reference
        self.reference = _reference(reference, policy, needed=needed, moves=reference_sync is not None)
        let_inputs_have_gradients(policy, args)
        self.length_limit = length_limit(policy, max_length)
        self._how = {"max_length": self.length_limit, "truncation": truncation, "on_bad_row": on_bad_row}
        sets = {
            name: self._prepared(rows, tokenizer, args, name)
            for name, rows in (("train_dataset", train_dataset), ("eval_dataset", eval_dataset))
        }
        super().__init__(
            policy,
            args,
            **sets,
            processing_class=tokenizer,
            data_collator=self.collator(tokenizer),
            callbacks=list(callbacks) if callbacks else None,
            optimizers=optimizers,
        )
        if self.reference is not None:
            self.speed.prepare(self.reference)
            self.reference.place(self.accelerator)
        refuse_shards(self.engine, quantised=is_quantised(policy), moves=reference_sync is not None)
        if reference_sync is not None:
            assert isinstance(self.reference, FrozenReference)
            self.add_callback(MovingReference(self.reference, policy, reference_sync))
        self._moves = reference_sync is not None

    # ---- what a subclass says ----------------------------------------------------------------------------------

    @property
    @abstractmethod
    def prepare(self) -> Callable[..., PreparedPairs]:
        """What makes prepared rows of raw ones."""

    _later: tuple[tuple[str, datasets.Dataset], ...] = ()
    columns_of_its_own: frozenset[str] = frozenset()
    """Columns that prepared rows may have beside them, and that nothing else reads."""

    @property
    @abstractmethod
    def columns(self) -> frozenset[str]:
        """Columns that prepared rows have."""

    @abstractmethod
    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Return what makes batches of prepared rows."""

    def before_wrapping(self, policy: nn.Module) -> None:
        """Change the policy, adapters and all, before its reference is made and anything wraps it."""

    def keeps_rows_apart(self) -> str:
        """Return why every row of a batch is computed as it is, for people; empty where it need not be."""
        return ""

    def check_objective(self, objective: Objective) -> None:
        """Refuse an objective that cannot be trained on this trainer's rows."""

    def usable_rows(self, rows: datasets.Dataset, name: str, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
        """Return the prepared rows that the objective reads; refuse such as it cannot be trained on."""
        return rows

    def came_later(self, rows: datasets.Dataset, name: str) -> datasets.Dataset:
        """Return usable rows that the trainer was not made with, with what it adds to its own after it is made."""
        return rows

    # ------------------------------------------------------------------------------------------------------------

    def settle_speed(
        self,
        model: nn.Module,
        batch: Mapping[str, Tensor],
        forward: Callable[[nn.Module, Mapping[str, Tensor]], Logps],
        sequences: Callable[[Logps], Sequence[SequenceLogps]],
        padded: Tensor,
        laid: Tensor | None,
    ) -> None:
        """Check on the first batch that what is computed faster stays what it is, and keep what pays.

        Args:
            model: the policy as it is called in training.
            batch: at hand; its shortest and its longest rows are what is checked.
            forward: takes a model and a batch and returns log-probabilities.
            sequences: turns them into such of sequences.
            padded: positions of the rows that a model computes.
            laid: positions of what it gets in their place where they are laid out; None where they are not.
        """

        def both(some: Mapping[str, Tensor]) -> list[SequenceLogps]:
            kept = isinstance(self.reference, KeptReference)
            other = None if kept else self.under_reference(model, lambda reference: forward(reference, some))
            return [each for logps in (forward(model, some), other) if logps is not None for each in sequences(logps)]

        if not self.speed.settled:
            beside = self.rows_beside(batch)
            positions = padded.numel(), padded.numel() if laid is None else laid.numel()
            self._settle(model, batch, both, (positions[0] + beside[0], positions[1] + beside[1]))
        trains = model.training and torch.is_grad_enabled()
        if trains and self.activations.undecided and not self.engine.shards_weights:
            self._decide_activations(model, batch, padded, laid if self.speed.packs else None)

    def _settle(
        self,
        model: nn.Module,
        batch: Mapping[str, Tensor],
        both: Callable[[Mapping[str, Tensor]], Sequence[SequenceLogps]],
        positions: tuple[int, int],
    ) -> None:
        packing = cast(Packing | None, getattr(self.data_collator, "packing", None))
        few = few_rows(batch, None if packing is None else lambda rows: self.lay_out(packing, rows))
        with without_dropout(model):
            self.speed.settle(
                lambda: both(few),
                lambda: self._all_forwards(model, batch, both),
                positions=positions,
                gather=self.accelerator.gather,
                exact=self.exact,
                device=self.accelerator.device,
            )
        self._lay_out_no_more()

    def _decide_activations(
        self, model: nn.Module, batch: Mapping[str, Tensor], padded: Tensor, laid: Tensor | None
    ) -> None:
        policy: Any = self.accelerator.unwrap_model(model)

        def longest() -> LongestBatch:
            head = self.speed.head(policy, policy.get_output_embeddings())
            return LongestBatch.like(
                batch,
                self.train_dataset,
                positions=(padded if laid is None else laid).numel() + self.positions_beside(batch),
                packed=laid is not None,
                tiles=None if head is None else head.tiles,
            )

        with without_dropout(model):
            note = self.activations.decide(policy, longest, optimizer=self.optimizer, accelerator=self.accelerator)
        self.speed.notes.append(note)
        say(f"speed: {note}")

    def positions_beside(self, batch: Mapping[str, Tensor]) -> int:
        """Return the positions of rows that the policy computes with gradient beside those of the objective."""
        return 0

    def rows_beside(self, batch: Mapping[str, Tensor]) -> tuple[int, int]:
        """Return the positions of rows that the policy computes beside those of the objective, padded and laid out."""
        return 0, 0

    def forward_beside(self, model: nn.Module, batch: Mapping[str, Tensor]) -> None:
        """Compute those rows, where forwards are timed."""

    def _all_forwards(
        self, model: nn.Module, batch: Mapping[str, Tensor], both: Callable[[Mapping[str, Tensor]], Any]
    ) -> None:
        both(batch)
        self.forward_beside(model, batch)

    def lay_out(self, packing: Packing, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return the layout of rows of a batch, as its collator makes it."""
        return packing.of_sides(rows)

    def _lay_out_no_more(self) -> None:
        """Spare collators a layout that nothing reads."""
        collator: Any = self.data_collator
        if not self.speed.packs and getattr(collator, "packing", None) is not None:
            collator.packing = None

    def _checked(self, objective: Objective | str | None) -> Objective:
        built = OBJECTIVES.build(objective) if isinstance(objective, str) else objective
        found = built if built is not None else DPO()
        self.check_objective(found)
        return found

    def evaluate(self, eval_dataset: Any = None, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate; rows that the trainer was not made with are prepared as those were."""
        with self.meter.paused():
            rows = self._at_hand(eval_dataset)
        return super().evaluate(rows, *args, **kwargs)

    def predict(self, test_dataset: Any, *args: Any, **kwargs: Any) -> Any:
        """Return what an evaluation computes of each row; rows are prepared as in :meth:`evaluate`.

        Raises:
            ValueError: if several data sets are given.
        """
        if isinstance(test_dataset, dict):
            raise ValueError(f"predict takes one data set, got {', '.join(map(str, test_dataset))}: call it for each")
        with self.meter.paused():
            self.keep_reference()
            return super().predict(self._at_hand(test_dataset), *args, **kwargs)

    def _at_hand(self, rows: Any) -> Any:
        """Return rows ready to be computed; names of data sets, and those that are there already, as they are."""
        if isinstance(rows, dict):
            return {key: self._at_hand(part) for key, part in rows.items()}
        known = [*self.row_sets().values(), *(ready for _, ready in self._later)]
        if rows is None or isinstance(rows, str) or any(rows is each for each in known):
            return rows
        name, key = "evaluated_dataset", getattr(rows, "_fingerprint", "")
        found = next((ready for of, ready in self._later if key and of == key), None)
        if found is None:
            found = self.came_later(self._prepared(rows, self.processing_class, self.args, name), name)
            self._later = (*self._later, (key, found))[-MOST_LATER:]
        return found

    def _prepared(self, rows: Any, tokenizer: Any, args: TrainingArguments, name: str) -> Any:
        if isinstance(rows, dict):
            return {key: self._prepared(part, tokenizer, args, f"{name}[{key!r}]") for key, part in rows.items()}
        if rows is None:
            return None
        there = set(getattr(rows, "column_names", None) or ())
        if not self.columns <= there:
            for column in sorted(self.columns_of_its_own & there):
                say(f"{name}: column {column!r} is not used: rows are prepared, and it is read of prepared ones alone")
            rows = self._prepare(rows, tokenizer, args, name)
        return self.usable_rows(rows, name, tokenizer)

    def _prepare(self, rows: Any, tokenizer: Any, args: TrainingArguments, name: str) -> datasets.Dataset:
        with args.main_process_first(local=False, desc=f"preparing {name}"):
            prepared = self.prepare(rows, tokenizer, name=name, **self._how)
            if args.process_index == 0:
                copy_skipped(prepared.skipped_file, skipped_beside(Path(args.output_dir or "."), name))
        say(f"{name}: {describe(prepared.report)}")
        return prepared.dataset

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # First: a checkpoint counts as whole once transformers has written its state, which it does last.
        folder = Path(self._get_output_dir(trial=None))
        if self.is_world_process_zero():
            self.speed.save(folder / f"checkpoint-{self.state.global_step}")
        if self._moves and self.is_world_process_zero():
            assert isinstance(self.reference, FrozenReference)
            save_reference(self.reference, folder, self.state.global_step)
        super()._save_checkpoint(*args, **kwargs)

    def restore(self, checkpoint: Path) -> None:
        """Take from a checkpoint the reference that moves, and how forwards were computed."""
        super().restore(checkpoint)
        self.speed.load(checkpoint)
        self._lay_out_no_more()
        if self._moves:
            assert isinstance(self.reference, FrozenReference)
            load_reference(self.reference, checkpoint)


def own_forward(trainer: Any, base: Any) -> str:
    """Return why a trainer's batches are not laid out, where its class has another forward than ``base``."""
    own = type(trainer).forward_logps is not base.forward_logps
    return f"{type(trainer).__name__} has a forward_logps of its own" if own else ""


def length_limit(model: Any, max_length: int | None) -> int | None:
    """Return ``max_length``, but no more tokens than the model has positions for; None where nothing sets a limit."""
    positions = getattr(model.config, "max_position_embeddings", None)
    limits = [limit for limit in (max_length, positions) if limit is not None]
    return min(limits, default=None)


def _policy(
    model: PreTrainedModel | nn.Module | str, tokenizer: PreTrainedTokenizerBase | None
) -> tuple[Any, PreTrainedTokenizerBase]:
    model = str(model) if isinstance(model, PathLike) else model
    path = model if isinstance(model, str) else getattr(model, "name_or_path", "")
    if tokenizer is None:
        if not path:
            raise ValueError("pass processing_class, the model's tokenizer: the model does not say where it is from")
        tokenizer = load_tokenizer(Source(path=path))
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return (load_model(Source(path=model)) if isinstance(model, str) else model), tokenizer


def _reference(reference: str | nn.Module, policy: nn.Module, *, needed: bool, moves: bool) -> Reference | None:
    if moves:
        if not needed:
            raise ValueError("reference_sync would not be used: the objective needs no reference; leave it out")
        if reference in ("auto", "base"):
            return moving_copy(policy)
        if reference == "adapter_off":
            raise ValueError("reference 'adapter_off' has no weights of its own to move; leave it out, or use 'base'")
    if isinstance(reference, str):
        is_path = reference not in REFERENCES and needed
        loaded = load_model(Source(path=reference)) if is_path else None
        return resolve_reference(reference, policy, needed=needed, loaded=loaded)
    if reference is policy:
        raise ValueError("the reference is the very model that is trained; use reference='base' for a frozen copy")
    return resolve_reference("a model that was passed", policy, needed=needed, loaded=reference)
