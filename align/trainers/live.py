"""Entanglement beside a trainer of ours: the monitor, opened around each batch of a measured step."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from align.diagnostics.advice import wrong_way
from align.diagnostics.before_step import before_step
from align.diagnostics.cotangents import Watched
from align.diagnostics.monitor import EntanglementMonitor
from align.diagnostics.watch import PairWatch
from align.models.logprobs import output_head
from align.objectives.logps import PairTokenLogps
from align.recipe.schema import DiagnosticsSettings
from align.report.console import say
from align.trainers.base import AlignmentTrainer

SAY_AGAIN = 10
"""A warning that stays true is said again after so many log entries that hold it."""


class LiveEntanglement(TrainerCallback):
    """Measures the pairs of a trainer while it trains, logs what it finds, and warns where a run goes the wrong way.

    Args:
        trainer: whose batches are of :class:`~align.data.collate.PairBatch`.
        settings: with a section ``entanglement``.

    Raises:
        ValueError: as :class:`~align.diagnostics.monitor.EntanglementMonitor`.
    """

    def __init__(self, trainer: AlignmentTrainer, settings: DiagnosticsSettings) -> None:
        self.trainer, self.settings = trainer, settings
        self.watch: PairWatch | None = None
        self._monitor: EntanglementMonitor | None = None
        self._warned = 0
        if settings.verify and trainer.engine.shards_weights:
            raise ValueError(
                f"diagnostics.verify builds whole gradients, and no process holds whole weights under "
                f"{trainer.engine}: leave it out here, and verify under one process or ddp"
            )

    @property
    def monitor(self) -> EntanglementMonitor:
        """The monitor, on the model as the engine has made it."""
        if self._monitor is None:
            trainer = self.trainer
            model = trainer.accelerator.unwrap_model(trainer.model)
            self._monitor = EntanglementMonitor(
                model,
                output_head(model),
                self.settings,
                folder=Path(str(trainer.args.output_dir)) if trainer.is_world_process_zero() else None,
                anywhere=self._anywhere,
                sharded=trainer.engine.shards_weights,
                follows_steps=trainer.engine.name != "zero3",
            )
        return self._monitor

    @contextmanager
    def batch(self, inputs: Mapping[str, Tensor]) -> Iterator[None]:
        """Measure the batch whose forward and backward are run inside, where its step is a measured one."""
        step = self.trainer.state.global_step
        if self.settings.entanglement is None or not self.settings.entanglement.measures(step):
            yield
            return
        watch = self.watch = self.monitor.open(step, inputs)

        def close() -> None:
            with self.trainer.accelerator.autocast():
                self.trainer.meter.note(self.monitor.close(watch, self._step_size(inputs["weight"])))

        try:
            with before_step(self.trainer.accelerator, close):
                yield
        finally:
            watch.recorder.detach()
            self.watch = None

    def forward(self, *, of_both_sides: bool) -> AbstractContextManager[None]:
        """Watch the forward inside, where it computes both sides, a row a sequence, and all logits; else do nothing."""
        if self.watch is None or not of_both_sides or not len(self.watch.pairs) or not torch.is_grad_enabled():
            return nullcontext()
        return self.watch.forward(self.watch.rows.trimmed)

    def paused(self) -> AbstractContextManager[None]:
        """Read nothing of a backward that is run inside, which is not the training's."""
        return nullcontext() if self.watch is None else self.watch.recorder.silent()

    def read(self, policy: PairTokenLogps) -> None:
        """Note the log-probabilities that the loss is about to read."""
        if self.watch is not None:
            self.watch.read(policy)

    def read_losses(self, losses: Tensor) -> None:
        """Note the loss of each pair."""
        if self.watch is not None:
            self.watch.read_losses(Watched(losses).get)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure what the step did to the pairs of its batches."""
        if self._monitor is not None:
            self.trainer.meter.note(self._monitor.stepped(state.global_step))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        """Warn where most measured pairs go the wrong way."""
        parting = getattr(self.trainer, "parting", None)
        text = wrong_way(logs or {}, None if parting is None else parting.name)
        if text is not None:
            if self._warned % SAY_AGAIN == 0 and state.is_world_process_zero:
                say(f"step {state.global_step}: {text}")
            self._warned += 1

    def _step_size(self, weight: Tensor) -> Tensor:
        """Return learning rate times the share of each row in the step's loss, a weighted mean over all its rows."""
        optimizer = self.trainer.optimizer
        rate = optimizer.param_groups[0]["lr"] if optimizer is not None else self.trainer.args.learning_rate
        return float(rate) * weight.double() / self.trainer.weight_of_step

    def _anywhere(self, here: bool) -> bool:
        accelerator = self.trainer.accelerator
        return bool(accelerator.gather(torch.tensor([here], device=accelerator.device)).any())
