"""The monitor beside trainers of others: TRL's ``DPOTrainer``, or any ``transformers.Trainer`` of pairs.

One line before ``trainer.train()``: ``align.attach_entanglement(trainer)``. Nothing of the trainer is changed but that
its ``training_step``, ``compute_loss`` and ``log`` are wrapped on this one object.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from align.diagnostics.advice import wrong_way
from align.diagnostics.before_step import before_step
from align.diagnostics.cotangents import Watched
from align.diagnostics.fused_head import FusedHead
from align.diagnostics.given import GivenLogps, Logps
from align.diagnostics.monitor import EntanglementMonitor
from align.diagnostics.watch import PairWatch
from align.models.adapters import has_adapter
from align.models.logprobs import output_head
from align.models.sharding import is_partitioned
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings
from align.report.console import say


def attach_entanglement(
    trainer: Trainer,
    *,
    every: int = 20,
    pairs: int | None = 8,
    optimiser: bool = True,
    verify: bool = False,
    logps: Logps | None = None,
) -> "AttachedMonitor":
    """Measure gradient entanglement while a trainer of TRL or transformers trains.

    What is measured is logged with whatever the trainer logs next, under ``entanglement/``, and a run that goes the
    wrong way is warned of.

    Args:
        trainer: TRL's ``DPOTrainer``; or any ``transformers.Trainer`` where ``logps`` is given.
        every: optimiser steps from one measured step to the next.
        pairs: pairs measured in such a step by each process; None for all.
        optimiser: whether to measure what the optimiser's own step does.
        verify: whether to compare the first measured pairs with whole gradients (only of TRL's trainer).
        logps: from the model and a batch to the chosen and the rejected log-probabilities of its pairs, in the graph.
            The batch is then measured by a pass of its own, and both count alike (d_w = d_l = 1).

    Raises:
        ValueError: if the trainer is not known and no ``logps`` is given, or weights are sharded as cannot be measured.
    """
    settings = DiagnosticsSettings(
        entanglement=EntanglementSettings(every=every, pairs=pairs, optimiser=optimiser), verify=verify
    )
    if logps is not None:
        if verify:
            raise ValueError("verify needs to know the forward: it goes with TRL's DPOTrainer, not with logps")
        return AttachedMonitor(trainer, settings, GivenLogps(logps))
    if not _is_trl_dpo(trainer):
        raise ValueError(
            f"{type(trainer).__name__} is not known: pass logps=f, where f(model, inputs) returns the chosen and the "
            "rejected log-probabilities of the batch's pairs; or attach to trl.DPOTrainer"
        )
    return AttachedMonitor(trainer, settings, None)


def _is_trl_dpo(trainer: Trainer) -> bool:
    return any(
        f"{cls.__module__}.{cls.__name__}" == "trl.trainer.dpo_trainer.DPOTrainer" for cls in type(trainer).__mro__
    )


class AttachedMonitor(TrainerCallback):
    """A monitor on one trainer; made by :func:`attach_entanglement`."""

    def __init__(self, trainer: Trainer, settings: DiagnosticsSettings, given: GivenLogps | None) -> None:
        self.trainer, self.settings, self.given = trainer, settings, given
        self._monitor: EntanglementMonitor | None = None
        self._pending: dict[str, list[Tensor]] = {}
        self._watch: PairWatch | None = None
        self._loss: Watched | None = None
        self._training_step, self._compute_loss, self._log = trainer.training_step, trainer.compute_loss, trainer.log
        trainer.training_step = self.training_step  # type: ignore[method-assign]
        trainer.compute_loss = self.compute_loss  # type: ignore[method-assign]
        trainer.log = self.log  # type: ignore[method-assign]
        trainer.add_callback(self)

    @property
    def model(self) -> Any:
        """The policy without wrappers."""
        return self.trainer.accelerator.unwrap_model(self.trainer.model)

    @property
    def monitor(self) -> EntanglementMonitor:
        """The monitor, on the model as the engine has made it."""
        if self._monitor is None:
            model = self.model
            sharded = any(is_partitioned(p) or hasattr(p, "full_tensor") for p in model.parameters())
            self._monitor = EntanglementMonitor(
                model,
                output_head(model),
                self.settings,
                folder=Path(str(self.trainer.args.output_dir)) if self.trainer.is_world_process_zero() else None,
                anywhere=self._anywhere,
                sharded=sharded,
                follows_steps=not any(map(is_partitioned, model.parameters())),
            )
        return self._monitor

    # ---- what is wrapped ---------------------------------------------------------------------------------------

    def training_step(self, model: nn.Module, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        """Train on a batch, and measure it where its step is measured."""
        assert self.settings.entanglement is not None
        step = self.trainer.state.global_step
        if not self.settings.entanglement.measures(step):
            return self._training_step(model, inputs, *args, **kwargs)
        inputs = self.trainer._prepare_inputs(inputs)
        if self.given is not None:
            model.train()  # as the step itself does, which comes after
            with self.trainer.accelerator.autocast():
                self._note(self.monitor.given(step, self.given, inputs, self._step_size))
            return self._training_step(model, inputs, *args, **kwargs)
        with self._measuring(step, inputs):
            return self._training_step(model, inputs, *args, **kwargs)

    def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
        """Compute the loss, and note what of it is differentiated."""
        found = self._compute_loss(*args, **kwargs)
        loss = found[0] if isinstance(found, tuple) else found
        if self._watch is not None:
            self._loss = Watched(loss)
        return found

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log with the means of what was measured since the last log of a training loss."""
        if "loss" in logs and self._pending:
            logs = {**logs, **self._means()}
            text = wrong_way(logs)
            if text is not None:
                say(f"step {self.trainer.state.global_step}: {text}")
        self._log(logs, *args, **kwargs)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Measure what the step did to the pairs of its batches."""
        if self._monitor is not None:
            self._note(self._monitor.stepped(state.global_step))

    # ---- TRL ---------------------------------------------------------------------------------------------------

    @contextmanager
    def _measuring(self, step: int, inputs: Mapping[str, Tensor]) -> Iterator[None]:
        watch = self._watch = self.monitor.open(step, {**inputs, "completion_mask": inputs["completion_mask"].bool()})
        base = self.model.get_base_model() if has_adapter(self.model) else self.model
        fused, total = FusedHead(base), len(inputs["input_ids"]) // 2
        watch.read_losses(lambda: self._share(total))
        if getattr(self.trainer, "aux_loss_enabled", False):
            watch.problem = "the loss of mixture-of-experts routers goes past the log-probabilities"

        def close() -> None:
            if watch.captured:
                counts = watch.weights().of_sides
                completion, groups = watch.batch["completion_mask"], watch.rows.groups
                fused.supply(watch.recorder, inputs["input_ids"], completion, groups, counts)
            with self.trainer.accelerator.autocast():
                self._note(self.monitor.close(watch, self._step_size(total)))

        try:
            with before_step(self.trainer.accelerator, close), fused.watching(), self._first_forward(watch):
                yield
        finally:
            watch.recorder.detach()
            self._watch = None

    @contextmanager
    def _first_forward(self, watch: PairWatch) -> Iterator[None]:
        """Watch the first forward with gradients inside, which is the policy's, and what its log-probabilities get."""
        inside, seen = ExitStack(), [False]

        def before(module: nn.Module, args: Any, kwargs: Any) -> None:
            first = torch.is_grad_enabled() and not seen[0] and torch._C._current_graph_task_id() == -1
            if first and len(watch.pairs) and not watch.problem:
                inside.enter_context(watch.forward(watch.rows))

        def after(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if not torch.is_grad_enabled() or seen[0]:
                return
            seen[0] = True
            inside.close()
            mask = watch.batch["completion_mask"][:, 1:]
            slopes, half = Watched(output.log_probs), len(mask) // 2
            watch.read_side("chosen", lambda: slopes.get()[:half, -mask.shape[1] :], mask[:half])
            watch.read_side("rejected", lambda: slopes.get()[half:, -mask.shape[1] :], mask[half:])

        with ExitStack() as stack:
            stack.callback(self.model.register_forward_pre_hook(before, with_kwargs=True).remove)
            stack.callback(self.model.register_forward_hook(after, with_kwargs=True).remove)
            yield

    def _share(self, pairs: int) -> Tensor:
        """Return what each pair's loss counts in what is differentiated: TRL takes the mean over a batch."""
        assert self._loss is not None
        return self._loss.get().expand(pairs) / pairs

    # ------------------------------------------------------------------------------------------------------------

    def _step_size(self, pairs: int) -> float:
        """Return learning rate times the share in the step's loss of one of so many pairs of a batch."""
        trainer = self.trainer
        optimizer = trainer.optimizer
        rate = optimizer.param_groups[0]["lr"] if optimizer is not None else trainer.args.learning_rate
        batches = getattr(trainer, "current_gradient_accumulation_steps", trainer.args.gradient_accumulation_steps)
        return float(rate) / float(pairs * trainer.accelerator.num_processes * batches)

    def _note(self, metrics: Mapping[str, Tensor]) -> None:
        for name, values in metrics.items():
            self._pending.setdefault(name, []).append(values.double())

    def _means(self) -> dict[str, float]:
        """Return the means over all processes, and start again."""
        names = list(self._pending)
        values = [torch.cat(self._pending.pop(name)) for name in names]
        sums = [torch.stack([v.nansum(), (~v.isnan()).sum().to(v)]) for v in values]
        gathered = self.trainer.accelerator.gather(torch.stack(sums)[None]).sum(0)
        return {name: float(total / count) for name, (total, count) in zip(names, gathered, strict=True) if count}

    def _anywhere(self, here: bool) -> bool:
        accelerator = self.trainer.accelerator
        return bool(accelerator.gather(torch.tensor([here], device=accelerator.device)).any())
