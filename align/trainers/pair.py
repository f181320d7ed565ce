"""Training on preference pairs: any objective, one trainer."""

import copy
import re
from collections.abc import Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from peft import LoraConfig
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainerCallback, TrainingArguments, set_seed

from align.data.bad_rows import copy_skipped
from align.data.collate import PairCollator
from align.data.prepare import prepare_pairs
from align.data.store import FEATURES, describe
from align.evaluation.accuracy import pair_accuracy
from align.models.adapters import add_adapter, has_adapter
from align.models.load import Source, disable_dropout, load_model, load_tokenizer
from align.models.logprobs import batch_logps, output_head
from align.models.reference import Reference, resolve_reference
from align.objectives.base import PairObjective
from align.objectives.dpo import DPO
from align.objectives.logps import PairLogps, PairTokenLogps, TokenLogps
from align.objectives.registry import OBJECTIVES
from align.recipe.paths import REFERENCES
from align.recipe.schema import EvaluationSettings
from align.report.console import say
from align.trainers.base import AlignmentTrainer, RowLosses

EVALUATED = ("rewards/chosen", "rewards/rejected", "length/chosen", "length/rejected")
"""Row metrics from which held-out accuracy is computed."""


class PairTrainer(AlignmentTrainer):
    """Trains a policy on pairs of a chosen and a rejected completion.

    Args:
        model: a causal language model, or the path or hub name of one.
        args: transformers' training arguments.
        objective: what is minimised, or the name of an objective with its defaults; DPO where absent.
        reference: ``base``, ``adapter_off``, ``none``, a model, or a model's path; ``auto`` takes the adapters
            off where there are some, else a frozen copy, and nothing where the objective needs nothing.
        train_dataset: rows in any of TRL's preference formats, or already prepared ones.
        eval_dataset: held-out rows in the same formats, or several sets by name.
        processing_class: the tokenizer; loaded with the model where that is a path.
        peft_config: adapters to train instead of all weights.
        max_length: longest prompt + completion in tokens; None is the model's own limit, which holds in any case.
        truncation: ``keep_start``, ``keep_end`` or ``drop``, for pairs that are longer.
        on_bad_row: ``fail`` at the first row that cannot be used, or ``skip`` them and write them to
            ``skipped-<data set>.jsonl`` in the output folder.
        evaluation: level of intervals and the like.
        callbacks: transformers' callbacks.
        optimizers: an optimiser and a schedule of one's own.

    Three methods are there to be overridden, and nothing else needs to be: :meth:`forward_logps` (another
    forward), :meth:`objective_loss` (another loss), :meth:`extra_loss` (something added to it).

    Raises:
        ValueError: if the parts do not fit, or a row cannot be used (naming it).
    """

    def __init__(
        self,
        model: PreTrainedModel | nn.Module | str,
        args: TrainingArguments | None = None,
        *,
        objective: PairObjective | str | None = None,
        reference: str | PreTrainedModel = "auto",
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
    ) -> None:
        args = copy.copy(args) if args is not None else TrainingArguments("align_output")
        set_seed(args.seed)  # before adapters are drawn; transformers seeds later
        policy, tokenizer = _policy(model, processing_class)
        disable_dropout(policy)
        if peft_config is not None:
            if has_adapter(policy):
                raise ValueError("the model has adapters already; pass it without peft_config to train them")
            policy = add_adapter(policy, peft_config)
        objective = OBJECTIVES.build(objective) if isinstance(objective, str) else objective
        self.objective: PairObjective = objective if objective is not None else DPO()
        self.evaluation = evaluation if evaluation is not None else EvaluationSettings()
        self.reference = _reference(reference, policy, needed=self.objective.needs_reference)
        self.start_margin: float | None = None
        if has_adapter(policy) and (args.gradient_checkpointing or args.activation_checkpointing):
            policy.enable_input_require_grads()  # else nothing under the frozen embedding has a gradient
        prepare = {"max_length": length_limit(policy, max_length), "truncation": truncation, "on_bad_row": on_bad_row}
        super().__init__(
            policy,
            args,
            train_dataset=_prepared(train_dataset, tokenizer, args, "train_dataset", prepare),
            eval_dataset=_prepared(eval_dataset, tokenizer, args, "eval_dataset", prepare),
            processing_class=tokenizer,
            data_collator=PairCollator(tokenizer.pad_token_id),
            callbacks=list(callbacks) if callbacks else None,
            optimizers=optimizers,
        )
        if self.reference is not None:
            self.reference.place(self.accelerator.device)

    # ---- what a subclass may override --------------------------------------------------------------------------

    def forward_logps(self, model: nn.Module, batch: Mapping[str, Tensor]) -> PairLogps:
        """Return both sides' log-probabilities under a model, policy or reference.

        The batch has 2 x pairs rows, the chosen sides first. Override for another forward.
        """
        tokens = batch_logps(model, output_head(self.accelerator.unwrap_model(model)), batch)
        return self.objective.weigh(split_sides(tokens))

    def objective_loss(self, policy: PairLogps, reference: PairLogps | None, batch: Mapping[str, Tensor]) -> Tensor:
        """Return the loss of each pair, shape (pairs,). Override for a loss that needs more of the batch."""
        return self.objective(policy, reference)

    def extra_loss(self, model: nn.Module, batch: Mapping[str, Tensor], policy: PairLogps) -> Tensor | None:
        """Return a loss of each pair to add, shape (pairs,), or None. Override to train something beside it."""
        return None

    # ------------------------------------------------------------------------------------------------------------

    def row_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return the loss and the metrics of each pair."""
        policy = self.forward_logps(model, batch)
        reference = self._reference_logps(model, batch)
        self._check_start(policy, reference)
        losses = one_a_pair(self.objective_loss(policy, reference, batch), policy, "objective_loss")
        if (extra := self.extra_loss(model, batch, policy)) is not None:
            losses = losses + one_a_pair(extra, policy, "extra_loss")
        rewards = self.objective.rewards(policy.detach(), reference)
        return RowLosses(losses=losses, metrics=pair_metrics(policy.detach(), *rewards))

    def summarise(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return means over the held-out set, and accuracy with its interval and its baselines."""
        means = {name: float(values.mean()) for name, values in rows.items() if name not in ("loss", "weight")}
        loss = float(np.average(rows["loss"], weights=rows["weight"]))
        accuracy = pair_accuracy(*(rows[name] for name in EVALUATED), settings=self.evaluation)
        return {"loss": loss, **means, **accuracy}

    def _reference_logps(self, model: nn.Module, batch: Mapping[str, Tensor]) -> PairLogps | None:
        if self.reference is None:
            return None
        with torch.no_grad(), self.reference.model(model) as reference:
            return self.forward_logps(reference, batch)

    def _check_start(self, policy: PairLogps, reference: PairLogps | None) -> None:
        """Where policy and reference are one function, their log-ratios are 0 before the first update."""
        first = self.start_margin is None and policy.chosen.requires_grad and self.state.global_step == 0
        if not first or reference is None or self.reference is None or not self.reference.equals_policy_at_start:
            return
        gap = torch.maximum((policy.chosen - reference.chosen).abs(), (policy.rejected - reference.rejected).abs())
        size = torch.maximum(reference.chosen.abs(), reference.rejected.abs()).clamp(min=1.0)
        tolerance = 1e-2 if self.accelerator.mixed_precision != "no" else 1e-4
        if not bool((gap <= tolerance * size).all()):
            raise ValueError(
                f"policy and reference ({self.reference.description}) differ by {float(gap.detach().max()):.4g} nats "
                "before the first update, though they should be one model. Was the model given with a trained adapter? "
                "Then use reference='base'. Does it drop or add noise at random while it trains? Then switch that off"
            )
        margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)
        self.start_margin = float(margin.detach().abs().max())


def one_a_pair(losses: Tensor, policy: PairLogps, method: str) -> Tensor:
    """Return losses as they are.

    Raises:
        ValueError: if they are not one for each pair.
    """
    if losses.shape != policy.chosen.shape:
        want, got = tuple(policy.chosen.shape), tuple(losses.shape)
        raise ValueError(f"{method} must return one loss for each pair, shape {want}; got {got}")
    return losses


def length_limit(model: Any, max_length: int | None) -> int | None:
    """Return ``max_length``, but no more tokens than the model has positions for; None where nothing sets a limit."""
    positions = getattr(model.config, "max_position_embeddings", None)
    limits = [limit for limit in (max_length, positions) if limit is not None]
    return min(limits, default=None)


def split_sides(tokens: TokenLogps) -> PairTokenLogps:
    """Split a batch whose first half is chosen and whose second half is rejected."""
    pairs = len(tokens.logp) // 2
    return PairTokenLogps(chosen=tokens.rows(0, pairs), rejected=tokens.rows(pairs, 2 * pairs))


def pair_metrics(policy: PairLogps, chosen_rewards: Tensor, rejected_rewards: Tensor) -> dict[str, Tensor]:
    """Return what is logged of each pair; log-probabilities in nats, lengths in tokens."""
    margins = chosen_rewards - rejected_rewards
    return {
        "logps/chosen": policy.chosen,
        "logps/rejected": policy.rejected,
        "mean_logps/chosen": policy.mean_chosen,
        "mean_logps/rejected": policy.mean_rejected,
        "rewards/chosen": chosen_rewards,
        "rewards/rejected": rejected_rewards,
        "rewards/margins": margins,
        "rewards/accuracies": (margins > 0).double() + 0.5 * (margins == 0).double(),
        "length/chosen": policy.chosen_lengths.double(),
        "length/rejected": policy.rejected_lengths.double(),
    }


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


def _reference(reference: str | nn.Module, policy: nn.Module, *, needed: bool) -> Reference | None:
    if isinstance(reference, str):
        is_path = reference not in REFERENCES and needed
        loaded = load_model(Source(path=reference)) if is_path else None
        return resolve_reference(reference, policy, needed=needed, loaded=loaded)
    if reference is policy:
        raise ValueError("the reference is the very model that is trained; use reference='base' for a frozen copy")
    return resolve_reference("a model that was passed", policy, needed=needed, loaded=reference)


def _prepared(rows: Any, tokenizer: Any, args: TrainingArguments, name: str, settings: dict[str, Any]) -> Any:
    if isinstance(rows, dict):
        return {key: _prepared(part, tokenizer, args, f"{name}[{key!r}]", settings) for key, part in rows.items()}
    if rows is None or set(FEATURES) <= set(getattr(rows, "column_names", ())):  # nothing, or prepared already
        return rows
    with args.main_process_first(desc=f"preparing {name}"):
        prepared = prepare_pairs(rows, tokenizer, name=name, **settings)
        if args.process_index == 0:
            copy_skipped(prepared.skipped_file, Path(args.output_dir or ".") / f"skipped-{_file_name(name)}.jsonl")
    say(f"{name}: {describe(prepared.report)}")
    return prepared.dataset


def _file_name(name: str) -> str:
    return re.sub(r"\W+", "-", name).strip("-")
