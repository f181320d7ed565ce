"""Training on preference pairs: any objective, one trainer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments

from align.data.collate import KEPT, PairCollator
from align.data.logp_store import PromptAndCompletion, sequences_of
from align.data.packing import Packing, prefix_of
from align.data.prepare import PreparedPairs, prepare_pairs
from align.data.scores import columns_of, require_scores
from align.data.store import FEATURES
from align.diagnostics.masks import ATTRIBUTE
from align.evaluation.accuracy import pair_accuracy
from align.models.beside import without
from align.models.logprobs import output_head
from align.models.pair_logps import kept_pairs, pair_logps, row_range
from align.objectives.base import SIDES, Objective
from align.objectives.logps import PairLogps, PairTokenLogps
from align.objectives.mixture import name_of
from align.objectives.together import together
from align.recipe.disentangle import Disentangle
from align.recipe.schema import DiagnosticsSettings, EvaluationSettings
from align.recipe.speed import SpeedSettings
from align.recipe.sync import ReferenceSyncSettings
from align.trainers.base import RowLosses, one_a_row
from align.trainers.live import LiveEntanglement
from align.trainers.pair_metrics import both_sides, pair_metrics, sequence_logps
from align.trainers.parting import Parting, refuse_to_part
from align.trainers.preference import PreferenceTrainer, own_forward


@dataclass(frozen=True, slots=True)
class ExtraLoss:
    """What :meth:`PairTrainer.extra_loss` may return beside a plain tensor: the loss, and what to log of it.

    Attributes:
        losses: of each pair, shape (pairs,).
        metrics: numbers of each pair, shape (pairs,), always the same names; logged, and averaged over held-out pairs.
        partial: metrics that are NaN for pairs they do not apply to.
    """

    losses: Tensor
    metrics: Mapping[str, Tensor] = field(default_factory=dict)
    partial: frozenset[str] = frozenset()


EVALUATED = ("rewards/chosen", "rewards/rejected", "length/chosen", "length/rejected")
"""Row metrics from which held-out accuracy is computed."""


class PairTrainer(PreferenceTrainer):
    """Trains a policy on pairs of a chosen and a rejected completion; arguments of :class:`PreferenceTrainer`.

    Three methods are there to be overridden, and nothing else needs to be: :meth:`forward_logps` (another
    forward), :meth:`objective_loss` (another loss), :meth:`extra_loss` (something added to it).

    Args:
        model: as above, and so for all other arguments but those below.
        args: transformers' training arguments.
        diagnostics: what is measured of the training itself; None for nothing.
        disentangle: what is done so that chosen and rejected log-probabilities part; None for nothing.

    Raises:
        ValueError: as above, or if ``disentangle`` does not fit the objective or the engine.
    """

    parting: Parting | None = None
    """What a remedy of ``disentangle`` does."""

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
        diagnostics: DiagnosticsSettings | None = None,
        disentangle: Disentangle | None = None,
    ) -> None:
        self._disentangle = disentangle
        super().__init__(
            model,
            args,
            objective=objective,
            reference=reference,
            reference_sync=reference_sync,
            train_dataset=train_dataset,
            eval_dataset=eval_dataset,
            processing_class=processing_class,
            peft_config=peft_config,
            max_length=max_length,
            truncation=truncation,
            on_bad_row=on_bad_row,
            evaluation=evaluation,
            callbacks=callbacks,
            optimizers=optimizers,
            speed=speed,
        )
        if self.parting is not None:
            self.parting.trainer = self
            refuse_to_part(self.parting, self.engine, plain=self._is_plain and set(self.objective.reads) == set(SIDES))
        self.live: LiveEntanglement | None = None
        if diagnostics is not None and diagnostics.entanglement is not None:
            self.live = LiveEntanglement(self, diagnostics)
            self.add_callback(self.live)

    # ---- what a subclass may override --------------------------------------------------------------------------

    def forward_logps(self, model: nn.Module, batch: Mapping[str, Tensor]) -> PairTokenLogps:
        """Return both sides' token log-probabilities under a model, policy or reference.

        The batch has 2 x pairs rows, the chosen sides first. In training, a side that the objective does not read is
        not computed and NaN. Override for another forward.
        """
        objective = self.objective
        head = output_head(self.accelerator.unwrap_model(model))
        return pair_logps(
            model,
            head,
            batch,
            sides=self.sides,
            collision=objective.needs_collision,
            prompt=objective.needs_prompt,
            layout=self.speed.layout(batch, prefix_of(self.sides)),
            tiled=self.speed.head(self.accelerator.unwrap_model(model), head),
        )

    def objective_loss(
        self, policy: PairTokenLogps, reference: PairTokenLogps | None, batch: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the loss of each pair, shape (pairs,). Override for a loss that needs more of the batch."""
        objective = self.objective
        if objective.couples_pairs and self.accelerator.num_processes > 1:
            objective = together(objective, self.processes(batch))
        return objective.of_tokens(policy, reference)

    def extra_loss(self, model: nn.Module, batch: Mapping[str, Tensor], policy: PairLogps) -> Tensor | ExtraLoss | None:
        """Return a loss of each pair to add, shape (pairs,), perhaps with what to log of it (:class:`ExtraLoss`).

        None, as here, adds nothing. Override to train something beside the objective.
        """
        return None

    # ------------------------------------------------------------------------------------------------------------

    def computed(self, batch: Mapping[str, Tensor], pairs: int) -> Tensor:
        """Return which positions of the rows that are computed hold real tokens."""
        return batch["attention_mask"][row_range(pairs, self.sides)]

    def reference_logps(self, model: nn.Module, batch: Mapping[str, Tensor]) -> PairTokenLogps | None:
        """Return what the objective compares with: kept, or computed; None where it compares with nothing."""
        if KEPT not in batch:
            return self.under_reference(model, lambda other: self.forward_logps(other, batch))  # type: ignore[no-any-return]
        return kept_pairs(batch[KEPT], batch["completion_mask"])

    def sequences_of(self, rows: datasets.Dataset) -> Iterator[PromptAndCompletion]:
        """Yield both sides of every pair."""
        return sequences_of(rows, "prompt_ids", tuple(f"{side}_ids" for side in SIDES))

    def keeps_no_reference(self) -> str:
        """Return why not, where a subclass has another forward."""
        return own_forward(self, PairTrainer) or super().keeps_no_reference()

    def laid(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Return which positions of what the policy got hold real tokens, where rows were laid out."""
        layout = self.speed.layout(batch, prefix_of(self.sides))
        return None if layout is None else layout.real

    @property
    def sides(self) -> tuple[str, ...]:
        """Sides that are computed: in training those that the objective reads; both in evaluation and for subclasses.

        A loss of a subclass's own may read what the objective does not.
        """
        return self._trained_sides if self.model is not None and self.model.training else SIDES

    @property
    def _trained_sides(self) -> tuple[str, ...]:
        own = (type(self).objective_loss, type(self).extra_loss)
        return self.objective.reads if own == (PairTrainer.objective_loss, PairTrainer.extra_loss) else SIDES

    @property
    def prepare(self) -> Callable[..., PreparedPairs]:
        """Pairs."""
        return prepare_pairs

    @property
    def columns(self) -> frozenset[str]:
        """Columns of prepared pairs."""
        return frozenset(FEATURES)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> Any:
        """Pairs as rows, the chosen sides first."""
        return PairCollator(int(str(tokenizer.pad_token_id)), packing=self.packing)

    @property
    def packing(self) -> Packing | None:
        """How batches are laid out beside their rows: for the sides of training, and for both."""
        return self.speed.packing(
            sides=tuple(dict.fromkeys((tuple(self._trained_sides), SIDES))),
            score_prompts=self.objective.needs_prompt,
            device=self.start_device,
        )

    def keeps_rows_apart(self) -> str:
        """Return why, where a remedy or a forward of a subclass reads the batch's rows."""
        if self._disentangle is not None:
            return "disentangle reads single rows"
        return own_forward(self, PairTrainer)

    def check_objective(self, objective: Objective) -> None:
        """Refuse an objective that only single completions can train.

        Raises:
            ValueError: naming the trainer that can.
        """
        if objective.needs_mismatched:
            raise ValueError(
                f"objective {name_of(objective)!r} is trained on single completions: use UnpairedTrainer, which takes "
                "pairs apart"
            )

    def usable_rows(self, rows: datasets.Dataset, name: str, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
        """Return the pairs.

        Raises:
            ValueError: naming the first that lacks scores the objective needs, or whose scores it cannot use.
        """
        check_scores(self.objective, rows, name)
        return rows

    def row_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return the loss and the metrics of each pair."""
        extras, training, parting = self._extras(batch), model.training, self.parting
        live = self.live if training else None
        padded = self.computed(batch, len(batch["weight"]))
        self.settle_speed(model, batch, self.forward_logps, sequence_logps, padded, self.laid(batch))
        with self.speed.plain(parting is not None):
            return self._row_losses(model, batch, extras, live)

    def _row_losses(
        self,
        model: nn.Module,
        batch: Mapping[str, Tensor],
        extras: Mapping[str, Any],
        live: LiveEntanglement | None,
    ) -> RowLosses:
        training, parting = model.training, self.parting
        with (
            parting.watching(batch, training=training) if parting else nullcontext(),
            live.forward(of_both_sides=self._is_plain and not self.speed.active) if live else nullcontext(),
        ):
            policy = replace(self.forward_logps(model, batch), **extras)
        if live:
            live.read(policy)
        reference = self.reference_logps(model, batch)
        reference = None if reference is None else replace(reference, **extras)
        plain, other = policy.summed(), None if reference is None else reference.summed()
        lengths = torch.stack([plain.chosen_lengths, plain.rejected_lengths])
        self.check_start(both_sides(plain), None if other is None else both_sides(other), lengths)
        read, compared = policy, reference
        if parting:
            read, compared = parting.applied(policy, reference, batch, training=training)
        losses = one_a_row(self.objective_loss(read, compared, batch), plain.chosen, "objective_loss", "pair")
        metrics = pair_metrics(plain.detach(), *self.objective.rewards(plain.detach(), other))
        partial = frozenset() if len(self.sides) == len(SIDES) else frozenset(metrics)
        added = self.extra_loss(model, batch, plain)
        if added is not None:
            extra = added if isinstance(added, ExtraLoss) else ExtraLoss(added)
            losses = losses + one_a_row(extra.losses, plain.chosen, "extra_loss", "pair")
            metrics, partial = {**metrics, **extra.metrics}, partial | extra.partial
        if parting:
            with live.paused() if live else nullcontext():
                losses, logged = parting.settled(losses, policy, training=training)
            self.meter.note(logged)
        if live:
            live.read_losses(losses)
        return RowLosses(
            losses=losses,
            metrics=metrics,
            partial=partial,
            attention_mask=self.computed(batch, len(losses)),
            laid=self.laid(batch),
        )

    @property
    def _is_plain(self) -> bool:
        """Whether the forward computes both sides of the batch, a row a sequence, and scores completions alone."""
        own = type(self).forward_logps is not PairTrainer.forward_logps
        return not own and not self.objective.needs_prompt and len(self.sides) == len(SIDES)

    def before_wrapping(self, policy: nn.Module) -> None:
        """Put a remedy's own weights on the policy."""
        if self._disentangle is not None:
            self.parting = Parting(self._disentangle, policy)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # First: a checkpoint counts as whole once transformers has written its state, which it does last.
        if self.parting is not None and self.is_world_process_zero():
            self.parting.save(Path(self._get_output_dir(trial=None)) / f"checkpoint-{self.state.global_step}")
        super()._save_checkpoint(*args, **kwargs)

    def restore(self, checkpoint: Path) -> None:
        """Take from a checkpoint what a remedy has to continue."""
        super().restore(checkpoint)
        if self.parting is not None:
            self.parting.load(checkpoint)

    def _save(self, output_dir: str | None = None, state_dict: Any = None) -> None:
        if self.parting is not None and self.parting.masks is not None:
            found = self.accelerator.unwrap_model(self.model).state_dict() if state_dict is None else state_dict
            state_dict = without(found, ATTRIBUTE)
        super()._save(output_dir, state_dict)

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Train on a batch, and measure it where its step is measured."""
        inputs = self._prepare_inputs(inputs)
        try:
            with self.live.batch(inputs) if self.live else nullcontext():
                return super().training_step(model, inputs, *args, **kwargs)
        finally:
            if self.parting is not None:
                self.parting.release()

    def start_gap(self, policy: Tensor, reference: Tensor) -> float:
        """Return the largest log-ratio margin before the first update, in nats."""
        chosen, rejected = (policy - reference).nan_to_num()
        return float((chosen - rejected).abs().max())

    def summarise(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return means over the held-out set, and accuracy with its interval and its baselines."""
        read = {name: values for name, values in rows.items() if name not in ("loss", "weight")}
        read |= {name: values[~np.isnan(values)] for name, values in read.items() if name in self.partial_metrics}
        means = {name: float(values.mean()) for name, values in read.items() if len(values)}
        loss = float(np.average(rows["loss"], weights=rows["weight"]))
        accuracy = pair_accuracy(*(rows[name] for name in EVALUATED), settings=self.evaluation)
        return {"loss": loss, **means, **accuracy}

    def _extras(self, batch: Mapping[str, Tensor]) -> dict[str, Any]:
        """Return what the objective needs beside log-probabilities, the same for policy and reference."""
        extras: dict[str, Any] = {}
        if self.objective.needs_scores:
            extras |= {"chosen_scores": batch["chosen_score"], "rejected_scores": batch["rejected_score"]}
        if self.objective.needs_draws:
            mask = batch["completion_mask"]
            pairs, device = len(mask) // 2, mask.device
            widths = [int(side.sum(-1).max()) for side in (mask[:pairs], mask[pairs:])]
            extras["draws"] = tuple(torch.rand(pairs, width, device=device) for width in widths)
        return extras


def check_scores(objective: Objective, rows: datasets.Dataset, name: str) -> None:
    """Refuse prepared pairs without scores, or with scores that the objective cannot use, where it needs them.

    Raises:
        ValueError: naming the first.
    """
    if not objective.needs_scores:
        return
    require_scores(rows, name)
    for bad, fault in objective.score_faults(*map(torch.from_numpy, columns_of(rows))):
        if bool(bad.any()):
            first = rows[int(bad.int().argmax())]
            scores = f"{first['chosen_score']:g} and {first['rejected_score']:g}"
            raise ValueError(f"{first['where']}: {fault} (scores {scores}; {int(bad.sum())} such rows)")
