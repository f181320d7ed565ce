"""Training on single completions, each desirable or not: KTO, and every objective that is a sum over both sides."""

from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from align.data.collate import KEPT, UnpairedCollator
from align.data.logp_store import PromptAndCompletion, sequences_of
from align.data.packing import Packing, Row, prefix_of
from align.data.prepare import PreparedPairs, prepare_unpaired
from align.data.store import UNPAIRED_FEATURES
from align.evaluation.separation import separation
from align.models.logprobs import batch_logps, output_head, packed_logps
from align.models.pair_logps import kept_tokens
from align.objectives.base import Objective
from align.objectives.logps import PairLogps, SequenceLogps
from align.objectives.mixture import name_of, row_losses, trains_unpaired
from align.report.console import say
from align.trainers.base import RowLosses, one_a_row
from align.trainers.preference import PreferenceTrainer, own_forward

SIDES = ("chosen", "rejected")
"""Metrics of desirable completions are called chosen, those of undesirable ones rejected, as in pair training."""
STAND_INS = 64
"""Rows kept for a step of one row, which has no other completion to be mismatched with."""


class UnpairedTrainer(PreferenceTrainer):
    """Trains a policy on single completions, each desirable or not; arguments of :class:`PreferenceTrainer`.

    Rows are ``prompt``, ``completion``, ``label``; pairs are taken apart. Two methods are there to be overridden:
    :meth:`forward_logps` (another forward) and :meth:`objective_loss` (another loss).
    """

    _stand_ins: tuple[Mapping[str, Any], ...] = ()
    _step: Sequence[Mapping[str, Any]] = ()  # batches of the optimiser step that begins
    _step_baseline: Tensor | None = None
    _step_left = 0  # of its batches, those whose loss is still to be computed

    # ---- what a subclass may override --------------------------------------------------------------------------

    def forward_logps(self, model: nn.Module, batch: Mapping[str, Tensor], prefix: str = "") -> SequenceLogps:
        """Return the log-probability of each completion under a model, policy or reference.

        Args:
            model: policy or reference.
            batch: one completion a row.
            prefix: ``mismatched_`` for each prompt with another row's completion.
        """
        inner = self.accelerator.unwrap_model(model)
        head = output_head(inner)
        layout = self.speed.layout(batch, prefix_of((prefix[:-1],) if prefix else ()))
        tiled = self.speed.head(inner, head)
        if layout is not None:
            return packed_logps(model, head, layout, tiled=tiled).summed()
        return batch_logps(model, head, batch, prefix=prefix, tiled=tiled).summed()

    def objective_loss(
        self, policy: SequenceLogps, reference: SequenceLogps | None, batch: Mapping[str, Tensor]
    ) -> Tensor:
        """Return the loss of each completion, shape (rows,). Override for a loss that needs more of the batch."""
        desirable = batch["desirable"]
        if not self.objective.couples_pairs or self.accelerator.num_processes == 1:
            return row_losses(self.objective, policy, reference, desirable)

        def of_all(columns: list[Any]) -> Tensor:
            logps, lengths, other, labels = columns
            everyones = SequenceLogps(logps=logps, lengths=lengths, baseline=policy.baseline)
            compared = None if other is None else SequenceLogps(logps=other, lengths=lengths)
            return row_losses(self.objective, everyones, compared, labels)

        other = None if reference is None else reference.logps
        return self.processes(batch).losses([policy.logps, policy.lengths, other, desirable], of_all)

    # ------------------------------------------------------------------------------------------------------------

    @property
    def prepare(self) -> Callable[..., PreparedPairs]:
        """Single completions."""
        return prepare_unpaired

    @property
    def columns(self) -> frozenset[str]:
        """Columns of prepared single completions."""
        return frozenset(UNPAIRED_FEATURES)

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> UnpairedCollator:
        """Rows as they are, with mismatched ones beside them where the objective needs them."""
        return UnpairedCollator(
            int(str(tokenizer.pad_token_id)),
            mismatched=self.objective.needs_mismatched,
            max_length=self.length_limit,
            stand_ins=self._stand_ins,
            packing=self.speed.packing(device=self.start_device),
        )

    def lay_out(self, packing: Packing, rows: Sequence[Row]) -> dict[str, Tensor]:
        """Return the layout of rows, each by itself."""
        return packing.keys(prefix_of(()), [row[2:] for row in rows], range(len(rows)))

    def check_objective(self, objective: Objective) -> None:
        """Refuse an objective that is a function of pairs.

        Raises:
            ValueError: naming the trainer that can train it.
        """
        if not trains_unpaired(objective):
            raise ValueError(
                f"objective {name_of(objective)!r} compares the two sides of a pair and cannot be trained on single "
                "completions: use PairTrainer, or an objective such as kto, bco_pair or apo_zero"
            )

    def usable_rows(self, rows: datasets.Dataset, name: str, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
        """Return the rows whose loss the objective reads, and keep some to stand in for steps of one row.

        Raises:
            ValueError: if there are none to train on.
        """
        if name != "train_dataset":
            return rows
        read = np.isin(np.asarray(rows["desirable"][:]), [side == "chosen" for side in self.objective.reads])
        if not read.any():
            kind = "desirable" if "chosen" in self.objective.reads else "undesirable"
            raise ValueError(f"{name}: objective {name_of(self.objective)!r} trains on {kind} rows, and there are none")
        if not read.all():
            say(f"{name}: {int((~read).sum()):,} of {len(read):,} rows are of a kind that the objective does not read")
            rows = rows.select(np.flatnonzero(read))
        self._stand_ins = tuple(rows[i] for i in range(min(len(rows), STAND_INS)))
        return rows

    def prompts_to_match(self, rows: datasets.Dataset) -> Sequence[Hashable] | None:
        """Digests of prompts, where the objective mismatches them."""
        return rows["prompt_hash"][:] if self.objective.needs_mismatched else None

    def get_batch_samples(
        self, epoch_iterator: Iterator[Any], num_batches: int, device: torch.device
    ) -> tuple[list[Any], Any]:
        """Return the batches of the coming optimiser step, and keep them for what is measured over all of them."""
        batches, weight = super().get_batch_samples(epoch_iterator, num_batches, device)
        self._step, self._step_left, self._step_baseline = batches, len(batches), None
        return batches, weight

    def row_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return the loss and the metrics of each completion."""
        layout = self.speed.layout(batch, prefix_of(()))
        laid = None if layout is None else layout.real
        self.settle_speed(
            model,
            batch,
            self.forward_logps,
            lambda logps: [logps],
            batch["attention_mask"],
            laid,
        )
        baseline = self._baseline(model, batch)
        policy = self.forward_logps(model, batch)
        reference = self._reference_logps(model, batch)
        self.check_start(policy.logps, None if reference is None else reference.logps, policy.lengths)
        based = SequenceLogps(logps=policy.logps, lengths=policy.lengths, baseline=baseline)
        losses = one_a_row(self.objective_loss(based, reference, batch), policy.logps, "objective_loss", "row")
        metrics = self._metrics(policy, reference, batch["desirable"], baseline)
        laid = None if layout is None or not self.speed.packs else layout.real
        return RowLosses(losses=losses, metrics=metrics, partial=frozenset(metrics), laid=laid)

    def _reference_logps(self, model: nn.Module, batch: Mapping[str, Tensor]) -> SequenceLogps | None:
        if KEPT not in batch:
            return self.under_reference(model, lambda other: self.forward_logps(other, batch))  # type: ignore[no-any-return]
        return kept_tokens(batch[KEPT], batch["completion_mask"]).summed()

    def sequences_of(self, rows: datasets.Dataset) -> Iterator[PromptAndCompletion]:
        """Yield every row's completion."""
        return sequences_of(rows, "prompt_ids", ("completion_ids",))

    def keeps_no_reference(self) -> str:
        """Return why not, where a subclass has another forward."""
        return own_forward(self, UnpairedTrainer) or super().keeps_no_reference()

    def keeps_rows_apart(self) -> str:
        """Return why, where a forward of a subclass reads the batch's rows."""
        return own_forward(self, UnpairedTrainer)

    def summarise(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return means over the held-out rows they apply to, and how well rewards tell desirable from undesirable."""
        means = {
            name: float(np.nanmean(values))
            for name, values in rows.items()
            if name not in ("loss", "weight") and not np.isnan(values).all()
        }
        loss = float(np.average(rows["loss"], weights=rows["weight"]))
        rewards = [rows[f"rewards/{side}"] for side in SIDES]
        told = separation(*(r[~np.isnan(r)] for r in rewards), settings=self.evaluation)
        return {"loss": loss, **means, **told}

    def _baseline(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Return the mean log-ratio on mismatched rows, over all processes; None where nothing needs it.

        In training it is one number for all batches of an optimiser step, during which no weight changes: accumulating
        is then the same as one large batch.
        """
        if not self.objective.needs_mismatched:
            return None
        if not model.training or not self._step_left:
            return self._mean_log_ratio(model, [batch])
        if self._step_baseline is None:
            self._step_baseline = self._mean_log_ratio(model, self._step)
        self._step_left -= 1
        return self._step_baseline

    def _mean_log_ratio(self, model: nn.Module, batches: Sequence[Mapping[str, Any]]) -> Tensor:
        totals = torch.stack([self._log_ratios(model, self._prepare_inputs(dict(batch))) for batch in batches]).sum(0)
        summed: Tensor = self.accelerator.gather(totals).view(-1, 2).sum(0)
        return summed[0] / summed[1]

    def _log_ratios(self, model: nn.Module, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the sum of the log-ratios on a batch's mismatched rows, and their number."""
        with torch.no_grad():
            policy = self.forward_logps(model, batch, "mismatched_")
            reference = self.under_reference(model, lambda other: self.forward_logps(other, batch, "mismatched_"))
        ratios = policy.logps - reference.logps
        real = batch["real"] if "real" in batch else torch.ones_like(ratios, dtype=torch.bool)
        return torch.stack([ratios.where(real, 0.0).sum(), real.sum().to(ratios.dtype)])

    def _metrics(
        self, policy: SequenceLogps, reference: SequenceLogps | None, desirable: Tensor, baseline: Tensor | None
    ) -> dict[str, Tensor]:
        rewards, _ = self.objective.rewards(_as_pairs(policy), None if reference is None else _as_pairs(reference))
        values = {
            "logps": policy.logps.detach(),
            "mean_logps": policy.mean_logps.detach(),
            "rewards": rewards.detach(),
            "length": policy.lengths.double(),
        }
        metrics = {
            f"{name}/{side}": found.masked_fill(~rows, torch.nan)
            for name, found in values.items()
            for side, rows in zip(SIDES, (desirable, ~desirable), strict=True)
        }
        return metrics if baseline is None else {**metrics, "kl": baseline.expand(len(desirable))}


def _as_pairs(rows: SequenceLogps) -> PairLogps:
    """Return completions as both sides of pairs, for what is defined on pairs."""
    return PairLogps(chosen=rows.logps, rejected=rows.logps, chosen_lengths=rows.lengths, rejected_lengths=rows.lengths)
