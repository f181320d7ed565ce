"""What every trainer here shares, on ``transformers.Trainer``: order and weighting of rows, metrics, evaluation.

A subclass says what a batch's rows lose (:meth:`AlignmentTrainer.row_losses`) and what a whole evaluation set amounts
to (:meth:`AlignmentTrainer.summarise`). How losses are averaged is decided here once: over all rows, by weight,
of the whole batch that an optimiser step sees, however it was cut into processes and accumulation steps.
"""

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed
from torch import Tensor, nn
from torch.utils.data import DataLoader, SequentialSampler
from transformers import EvalPrediction, Trainer, TrainingArguments
from transformers.trainer_pt_utils import BatchRebalanceSampler, LengthGroupedSampler
from transformers.trainer_utils import get_last_checkpoint

from align.data.order import DrawnRows, Order
from align.models.adapters import has_adapter
from align.objectives.together import Processes
from align.trainers.callbacks import MetricsFile, OneLineProgress
from align.trainers.engine import check_continues, engine_of, write_engine
from align.trainers.meter import Meter


@dataclass(frozen=True, slots=True, kw_only=True)
class RowLosses:
    """What a batch comes to.

    Attributes:
        losses: the loss of each row, in the graph.
        metrics: numbers of each row to log and to evaluate; always the same names.
        partial: metrics that are NaN for rows they do not apply to.
        attention_mask: real tokens of the rows that were computed; None for all of the batch's.
        laid: real positions of what the model got in their place, where rows were laid out.
    """

    losses: Tensor
    metrics: Mapping[str, Tensor]
    partial: frozenset[str] = frozenset()
    attention_mask: Tensor | None = None
    laid: Tensor | None = None


class AlignmentTrainer(Trainer, ABC):
    """Abstract: owns the loop, not the forward.

    Batches are dictionaries with ``input_ids``, ``attention_mask`` and ``weight``, one weight a row of the loss.
    """

    def __init__(self, model: Any, args: TrainingArguments, **options: Any) -> None:
        _refuse_what_is_not_read(args)
        args.remove_unused_columns = False  # columns of pairs are no arguments of a model's forward
        if args.n_gpu > 1:
            raise ValueError(
                f"one process sees {args.n_gpu} GPUs, which would mean DataParallel; start one process a GPU with "
                "'accelerate launch', or set CUDA_VISIBLE_DEVICES"
            )
        self.meter = Meter()
        self._row_metric_names: list[str] = []
        self.partial_metrics: frozenset[str] = frozenset()
        """Metrics of the evaluation at hand that are NaN for rows they do not apply to."""
        self.weight_of_step: Tensor | int = 1
        """Weight of all rows that the optimiser step at hand sees, on all processes."""
        super().__init__(model=model, args=args, compute_metrics=self._whole_set_metrics, **options)
        _refuse_strangers(self.accelerator.num_processes)
        self.engine = engine_of(self.accelerator)
        self.loss_is_scaled_for_ga = True
        OneLineProgress.replace_default(self)
        self.add_callback(MetricsFile())

    @property
    def rows_of_step(self) -> int:
        """Rows that an optimiser step sees, on all processes, over all its batches."""
        return self._together(self.args.train_batch_size) * self.args.gradient_accumulation_steps

    @abstractmethod
    def row_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return the loss and the metrics of each row of a batch."""

    def prompts_to_match(self, rows: Any) -> Sequence[Hashable] | None:
        """Return something equal for rows of equal prompts, where rows are matched with other rows; else None."""
        return None

    @abstractmethod
    def summarise(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return what an evaluation over the whole set says, given every row's metrics."""

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, None]:
        """Return the batch's share of the weighted mean over the whole optimiser step.

        Gradients of processes are averaged afterwards, so each share is scaled up by their number.
        """
        with self.accelerator.autocast():
            rows = self.row_losses(model, inputs)
        weight = inputs["weight"].to(rows.losses.dtype)
        self.weight_of_step = weight.sum() if num_items_in_batch is None else num_items_in_batch
        if num_items_in_batch is None:
            loss = (rows.losses * weight).sum() / weight.sum()
        else:
            loss = (rows.losses * weight).sum() / num_items_in_batch * self.accelerator.num_processes
        mask = inputs["attention_mask"] if rows.attention_mask is None else rows.attention_mask
        if (real := inputs.get("real")) is not None:
            mask = mask * self.real_sequences(real, len(mask))[:, None]
        self.meter.add(rows.metrics, mask, rows.partial, real, rows.laid)
        return (loss, None) if return_outputs else loss

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """Return the weight of all rows that the coming optimiser step sees, on all processes."""
        if not batch_samples:
            return None
        total = torch.stack([batch["weight"].sum() for batch in batch_samples]).sum().to(device)
        gathered: Tensor = self.accelerator.gather(total)
        return gathered.sum()

    def real_sequences(self, real: Tensor, sequences: int) -> Tensor:
        """Return which sequences of a batch are of rows that count: one or several a row, the first of all rows first.

        Args:
            real: which rows count, shape (rows,).
            sequences: of the batch.
        """
        return real.repeat(sequences // len(real))

    def processes(self, batch: Mapping[str, Tensor]) -> Processes:
        """Return how a batch's rows are brought together with those of other processes."""
        real = batch["real"] if "real" in batch else torch.ones_like(batch["weight"], dtype=torch.bool)
        return Processes(gather=gather_with_gradient, rank=self.accelerator.process_index, real=real)

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Log what was asked for, with the means since the last logging of a training loss."""
        if "loss" in logs:
            logs = {**logs, **self.measured()}
        super().log(logs, start_time)

    def measured(self) -> dict[str, float]:
        """Return the means since they were last asked for, with the throughput."""
        return self.meter.read(self.accelerator.gather)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        """Return every held-out row, also where training drops batches that are not full."""
        with self._dropping_none():
            return super().get_eval_dataloader(eval_dataset)

    def get_test_dataloader(self, test_dataset: Any) -> DataLoader[Any]:
        """Return every row, as for an evaluation."""
        with self._dropping_none():
            return super().get_test_dataloader(test_dataset)

    @contextmanager
    def _dropping_none(self) -> Iterator[None]:
        dropping, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        try:
            yield
        finally:
            self.args.dataloader_drop_last = dropping

    def _get_dataloader(
        self,
        dataset: Any,
        description: str,
        batch_size: int,
        sampler_fn: Callable[[Any], Any] | None = None,
        is_training: bool = False,
        dataloader_key: str | None = None,
    ) -> DataLoader[Any]:
        """Return batches of rows in an order that does not depend on how a step is cut into processes and batches."""
        sampler = None if sampler_fn is None else sampler_fn(dataset)
        sampler = SequentialSampler(dataset) if sampler is None else sampler
        if isinstance(sampler, BatchRebalanceSampler):  # knows of processes itself, and makes equally many batches
            if self.prompts_to_match(dataset) is not None:
                raise ValueError(
                    "train_sampling_strategy='batch_rebalance' draws batches, and the objective matches rows over "
                    "whole optimiser steps; use 'random', 'sequential' or 'group_by_length'"
                )
            if self.accelerator.num_processes > 1:
                raise ValueError(
                    "train_sampling_strategy='batch_rebalance' gives processes batches of different sizes and repeats "
                    "rows that the last ones lack, which would count twice; use 'group_by_length'"
                )
            return super()._get_dataloader(
                dataset, description, batch_size, lambda _: sampler, is_training, dataloader_key
            )
        order = self._order(sampler, dataset, batch_size, is_training)
        return super()._get_dataloader(
            DrawnRows(dataset), description, batch_size, lambda _: order, is_training, dataloader_key
        )

    def _together(self, batch_size: int) -> int:
        """Return the rows of the batches that all processes compute at once."""
        return batch_size if self.accelerator.split_batches else batch_size * self.accelerator.num_processes

    def _order(self, sampler: Any, rows: Any, batch_size: int, is_training: bool) -> Order:
        together = self._together(batch_size)
        step = together * (self.args.gradient_accumulation_steps if is_training else 1)
        if isinstance(sampler, LengthGroupedSampler):
            sampler.batch_size = step
        fills = self.accelerator.num_processes > 1 and not self.args.dataloader_drop_last
        return Order(
            sampler,
            step=step,
            fill_to=together if fills else 1,
            prompts=self.prompts_to_match(rows),
            seed=self.args.seed if self.args.data_seed is None else self.args.data_seed,
        )

    def restore(self, checkpoint: Path) -> None:
        """Take from a checkpoint what is kept beside the model's weights, before training goes on under any engine."""

    def train(self, resume_from_checkpoint: str | bool | None = None, *args: Any, **kwargs: Any) -> Any:
        """Train; what was set up before does not count in the throughput.

        Raises:
            ValueError: if the checkpoint was written under an engine whose optimiser state this one cannot read.
        """
        if resume_from_checkpoint:
            asked = resume_from_checkpoint
            last = get_last_checkpoint(str(self.args.output_dir)) if asked is True else asked  # type: ignore[no-untyped-call]
            if last is not None:  # else transformers says that there is none
                check_continues(self.engine, self.rows_of_step, Path(str(last)))
                self.restore(Path(str(last)))
        self.meter = Meter()
        return super().train(resume_from_checkpoint, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate over the whole set; intervals and baselines are in :meth:`summarise`."""
        with self.meter.paused():
            metrics: dict[str, float] = super().evaluate(*args, **kwargs)
        return metrics

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[None, Tensor, Tensor]:
        """Return every row's loss and metrics as a matrix, which the loop gathers over batches and processes."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad(), self.accelerator.autocast():
            rows = self.row_losses(model, inputs)
        columns = {"loss": rows.losses, **rows.metrics}
        self._row_metric_names, self.partial_metrics = list(columns), rows.partial
        matrix = torch.stack([column.float() for column in columns.values()], dim=1)
        return None, matrix, inputs["weight"]

    def _whole_set_metrics(self, prediction: EvalPrediction) -> dict[str, float]:
        matrix = np.asarray(prediction.predictions, dtype=np.float64)
        rows = dict(zip(self._row_metric_names, matrix.T, strict=True))
        return self.summarise({**rows, "weight": np.asarray(prediction.label_ids)})

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """Save the whole model, or its adapters, under every engine; of checkpoints, FSDP2 leaves weights in shards."""
        if self.engine.name != "fsdp2" or _internal_call:
            super().save_model(output_dir, _internal_call)
            return
        state = self.accelerator.get_state_dict(self.model)
        self._save(output_dir, state_dict=state)

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        # First: a checkpoint counts as whole once transformers has written its state, which it does last.
        folder = Path(self._get_output_dir(trial=None)) / f"checkpoint-{self.state.global_step}"
        if self.is_world_process_zero():
            write_engine(self.engine, self.rows_of_step, folder)
        with self.meter.paused():
            if self.engine.name == "fsdp2":
                self._describe_shards(folder)
            super()._save_checkpoint(*args, **kwargs)

    def _describe_shards(self, folder: Path) -> None:
        """Write beside a checkpoint's shards what makes the folder a model's: adapters, or all but merged weights."""
        model = self.accelerator.unwrap_model(self.model)
        if has_adapter(model):
            self.save_model(str(folder))
        elif self.is_world_process_zero():
            for described in (model.config, getattr(model, "generation_config", None), self.processing_class):
                if described is not None:
                    described.save_pretrained(folder)


class _Gathered(torch.autograd.Function):
    """Rows of all processes; backward, what every process asks of a row is summed up where the row is."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:
        everyones = [torch.empty_like(rows) for _ in range(torch.distributed.get_world_size())]
        torch.distributed.all_gather(everyones, rows.contiguous())
        return torch.cat(everyones)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        (gradient,) = gradients
        summed = gradient.contiguous()
        torch.distributed.all_reduce(summed)
        return summed.chunk(torch.distributed.get_world_size())[torch.distributed.get_rank()]


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Return the rows of all processes, one after the other; every process must have equally many."""
    return _Gathered.apply(rows)  # type: ignore[no-any-return,no-untyped-call]


def one_a_row(losses: Tensor, like: Tensor, method: str, row: str) -> Tensor:
    """Return losses as they are.

    Raises:
        ValueError: if they are not one for each row.
    """
    if losses.shape != like.shape:
        raise ValueError(
            f"{method} must return one loss for each {row}, shape {tuple(like.shape)}; got {tuple(losses.shape)}"
        )
    return losses


def _refuse_what_is_not_read(args: TrainingArguments) -> None:
    """Refuse settings that other trainers read and this one does not."""
    if type(args).__module__.startswith("trl."):
        raise ValueError(
            f"pass transformers.TrainingArguments instead of {type(args).__name__}: what it adds (beta, loss_type, "
            "max_length, ...) would be ignored; give objective=DPO(beta=...), max_length=... to the trainer"
        )
    for name, needed in (
        ("label_smoothing_factor", 0),
        ("neftune_noise_alpha", None),
        ("eval_do_concat_batches", True),
    ):
        if getattr(args, name) != needed:
            raise ValueError(f"{name}={getattr(args, name)} has no place in preference training; leave it out")
    for name, refused in (("dispatch_batches", True), ("even_batches", False)):
        if getattr(args.accelerator_config, name, None) is refused:
            raise ValueError(
                f"accelerator_config: {name}={refused} has no place here: every process draws its own batches, and the "
                "last ones are filled up with rows that do not count; leave it out"
            )


def _refuse_strangers(num_processes: int) -> None:
    """Refuse processes that were launched together but would each train alone, on all data, into one folder."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched != num_processes:
        raise ValueError(
            f"launched as {launched} processes, but this one sees {num_processes}: they would train apart; on a "
            "machine without GPU set use_cpu=True in the training arguments (trainer.use_cpu=true in a recipe)"
        )
