"""Trains any module by any function of rows, in the main hall's loop: processes, accumulation, metrics, checkpoints."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, Sampler
from transformers import TrainingArguments

from align.trainers.base import AlignmentTrainer, RowLosses

Losses = Callable[[nn.Module, Mapping[str, Tensor]], RowLosses]
"""From the network, as the engine wraps it, and a batch to the loss and the metrics of each of its rows."""
COMPOSER_FILE = "composer.pt"


class Composes(Protocol):
    """A sampler of row numbers that has a state of its own, which checkpoints keep."""

    def state_dict(self) -> dict[str, Any]:
        """Return what the sampler draws from."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from such a state."""


class MethodTrainer(AlignmentTrainer):
    """Final: the trainer of every stage of every method.

    Args:
        model: the network.
        args: the training arguments.
        losses: what a batch's rows lose.
        rows: to train on; columns are stacked into batches.
        sampler: of row numbers, in the order they are trained; None shuffles.
        figures: what an evaluation says of the network; None where nothing is evaluated while it trains.
        couples_rows: whether a row's loss depends on the other rows of its batch.
        optimizers: an optimiser of the method's own, and None; else the recipe's is made.

    Raises:
        ValueError: a step is cut into accumulation steps although the rows of a batch belong together.
    """

    def __init__(
        self,
        model: nn.Module,
        args: TrainingArguments,
        *,
        losses: Losses,
        rows: Dataset[Any],
        sampler: Sampler[int] | None = None,
        figures: Callable[[], Mapping[str, float]] | None = None,
        couples_rows: bool = False,
        **options: Any,
    ) -> None:
        if couples_rows and args.gradient_accumulation_steps > 1:
            raise ValueError(
                "trainer.gradient_accumulation_steps: every row is compared with the others of its batch, and a step "
                "cut into batches would have fewer of them; raise per_device_train_batch_size, or add processes"
            )
        self._losses, self._sampler, self._figures = losses, sampler, figures
        super().__init__(
            model, args, train_dataset=rows, eval_dataset=rows if figures else None, data_collator=stacked, **options
        )

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train; processes draw alike, and each takes what is of its own rows (:func:`~align.wings.processes.drawn`).

        Raises:
            ValueError: a batch would be filled up with copies, or no batch is left.
        """
        processes = self.accelerator.num_processes
        together = self._together(self.args.train_batch_size)
        rows: Any = self.train_dataset if self._sampler is None else self._sampler
        short = len(rows) % together
        if processes > 1 and short and not self.args.dataloader_drop_last:
            raise ValueError(
                f"trainer.dataloader_drop_last: the last batch of an epoch has {short} of {together} rows, and on "
                "several processes it would be filled up with copies, which batch norm and whatever compares rows "
                "would count; set it to true"
            )
        if self.args.dataloader_drop_last and len(rows) < together:
            raise ValueError(
                f"trainer.per_device_train_batch_size: {together} rows make a batch, and there are {len(rows)}: "
                "trainer.dataloader_drop_last leaves none"
            )
        return super().train(*args, **kwargs)

    def row_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return the loss and the metrics of each row."""
        found = self._losses(model, batch)
        one_each = torch.ones(len(batch["weight"]), 1, dtype=torch.long, device=found.losses.device)
        return RowLosses(losses=found.losses, metrics=found.metrics, partial=found.partial, attention_mask=one_each)

    def summarise(self, rows: Mapping[str, np.ndarray]) -> dict[str, float]:
        """Return means over the rows; evaluations ask :meth:`evaluate` instead."""
        return {name: float(np.nanmean(column)) for name, column in rows.items()}

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Return the figures of the network as it is; the same on every process."""
        assert self._figures is not None
        training = self.model.training  # type: ignore[union-attr]
        with self.meter.paused(), torch.no_grad():
            self.model.eval()  # type: ignore[union-attr]
            found = {f"eval_{name}": float(value) for name, value in self._figures().items()}
            self.model.train(training)  # type: ignore[union-attr]
        self.log(found)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, found)
        return found

    def measured(self) -> dict[str, float]:
        """Return the means since they were last asked for, with rows a second; there are no tokens here."""
        found = super().measured()
        if not found:
            return found
        rate = found.pop("tokens_per_second")
        del found["padding_fraction"], found["shared_fraction"]
        return {**found, "rows_per_second": rate}

    def _get_train_sampler(self, train_dataset: Any = None) -> Any:
        return self._sampler if self._sampler is not None else super()._get_train_sampler(train_dataset)

    def restore(self, checkpoint: Path) -> None:
        """Take the sampler's state, where it has one."""
        file = checkpoint / COMPOSER_FILE
        if file.is_file() and self._sampler is not None:
            self._sampler.load_state_dict(torch.load(file, weights_only=True))  # type: ignore[attr-defined]

    def _save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        sampler: Any = self._sampler
        if hasattr(sampler, "state_dict") and self.is_world_process_zero():
            folder = Path(self._get_output_dir(trial=None)) / f"checkpoint-{self.state.global_step}"
            folder.mkdir(parents=True, exist_ok=True)
            torch.save(sampler.state_dict(), folder / COMPOSER_FILE)
        super()._save_checkpoint(*args, **kwargs)


def stacked(rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:
    """Return a batch: every column stacked, ``weight`` of each row and ``real``, False for rows that fill up."""
    filler = torch.tensor([bool(row["filler"]) for row in rows])
    names = [name for name in rows[0] if name not in ("filler", "weight")]
    batch = {name: torch.stack([row[name] for row in rows]) for name in names}
    return {**batch, "weight": (~filler).float(), "real": ~filler}
