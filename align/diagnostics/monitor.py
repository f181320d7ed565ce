"""Entanglement while a model trains: which steps and pairs are measured, and what is logged of them."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from align.diagnostics.advice import PREFIX
from align.diagnostics.blocks import trainable_parameters
from align.diagnostics.capture import Recorder
from align.diagnostics.conditions import METRICS, Pull, step_metrics
from align.diagnostics.given import GivenLogps
from align.diagnostics.gradients import PairGradients
from align.diagnostics.measure import brute_force, drops, largest_error, measure, rows_of_pairs, without_dropout
from align.diagnostics.steps import Kept, Snapshot
from align.diagnostics.watch import Found, PairWatch
from align.recipe.schema import DiagnosticsSettings, EntanglementSettings
from align.report.console import say

LAYERS_FILE = "entanglement.jsonl"
"""Products of each part of the model, a measured step a line."""
VERIFIED = 2
"""Pairs of the first measured step whose whole gradients are built, to check on the measurement."""
OTHERS = ("coverage", "extra_pass")
"""What is logged beside :data:`METRICS`: share of weights covered, share of pairs that took a pass of their own."""


class EntanglementMonitor:
    """Measures pairs of some optimiser steps.

    A trainer opens a batch, has the watch it gets see the forward and the losses, and closes it after the backward;
    and says when the optimiser has stepped.

    Args:
        model: the policy, not wrapped.
        head: its output embedding.
        settings: which steps and pairs, and whether to verify.
        folder: where :data:`LAYERS_FILE` is written; None for nowhere.
        anywhere: whether something is so in any process: asked where weights are sharded and all must act alike.
        sharded: whether no process holds whole weights.
        follows_steps: whether changes of weights can be read after a step (not under ZeRO-3).

    Raises:
        ValueError: if whole gradients are to be built where no process has whole weights.
    """

    def __init__(
        self,
        model: nn.Module,
        head: nn.Module,
        settings: DiagnosticsSettings,
        *,
        folder: Path | None = None,
        anywhere: Callable[[bool], bool] = bool,
        sharded: bool = False,
        follows_steps: bool = True,
    ) -> None:
        assert settings.entanglement is not None
        if settings.verify and sharded:
            raise ValueError(
                "diagnostics.verify builds whole gradients, and no process holds whole weights under this engine: "
                "leave it out here, and verify under one process or ddp"
            )
        self.settings: EntanglementSettings = settings.entanglement
        self.model, self.head = model, head
        self.folder, self.anywhere, self.sharded = folder, anywhere, sharded
        self.follows_steps = self.settings.optimiser and follows_steps
        self._unverified = settings.verify
        self._said: set[str] = set()
        self._step: int | None = None
        self._left: int | None = None
        self._snapshot: Snapshot | None = None
        self._kept: list[Kept] = []
        self._measured: list[PairGradients] = []
        if self.settings.optimiser and not follows_steps:
            self._say("what the optimiser's own step does is not measured under zero3; plain descent is")

    def _begin(self, step: int) -> None:
        if step != self._step:
            self._step, self._left, self._kept, self._measured = step, self.settings.pairs, [], []
            values = [parameter.value for parameter in trainable_parameters(self.model).values()]
            self._snapshot = Snapshot(values) if self.follows_steps else None

    def open(self, step: int, batch: Mapping[str, Tensor]) -> PairWatch:
        """Begin a batch of a measured step: the first pairs of the step that count, as many as ``pairs`` says."""
        self._begin(step)
        recorder = Recorder(self.model, keep=self.follows_steps)
        total = len(batch["input_ids"]) // 2
        counts = torch.ones(total, dtype=torch.bool, device=batch["input_ids"].device)
        for column in ("weight", "real"):
            counts = counts & (batch[column] != 0) if column in batch else counts
        pairs = counts.nonzero().flatten()[: self._left]
        self._left = None if self._left is None else self._left - len(pairs)
        return PairWatch(self.model, self.head, batch, pairs, recorder)

    def close(self, watch: PairWatch, step_size: float | Tensor) -> dict[str, Tensor]:
        """Return what is logged of each measured pair, after the batch's backward.

        Args:
            watch: of the batch.
            step_size: learning rate times the share that a pair has in the step's loss, one for all or one each.
        """
        watch.recorder.detach()
        weights = watch.weights()
        good = watch.captured_pairs(weights)
        found = [watch.from_backward(weights, good)] if bool(good.any()) else []
        lacking = not bool(good.all())
        if self.anywhere(lacking) if self.sharded else lacking:
            if lacking:
                found.append(watch.from_extra_pass(weights, ~good))
                self._say(f"{watch.problem}: such pairs are measured by a pass of their own")
            else:
                watch.idle_pass()
        self._kept += [one.kept for one in found]
        self._announce_coverage(watch.recorder.coverage, watch.recorder.uncovered)
        if self._unverified and found:
            self._verify(watch, found)
        self._measured += [one.pull.gradients for one in found]
        sizes = [step_size[one.pairs] if isinstance(step_size, Tensor) else step_size for one in found]
        parts = [_metrics(one.pull, size, extra=one.extra) for one, size in zip(found, sizes, strict=True)]
        nothing = torch.zeros(0, dtype=torch.float64, device=good.device)
        return {
            f"{PREFIX}{name}": torch.cat([part[name] for part in parts]) if parts else nothing
            for name in (*METRICS, *OTHERS)
        }

    def given(
        self, step: int, logps: GivenLogps, batch: Mapping[str, Any], step_size: Callable[[int], float]
    ) -> dict[str, Tensor]:
        """Return what is logged of a batch whose log-probabilities a user's function computes; both count alike.

        Args:
            step: optimiser step, from 0.
            logps: the function.
            batch: what it takes.
            step_size: from the pairs of a batch to learning rate times the share that each has in the step's loss.

        Raises:
            ValueError: if each log-probability would be differentiated by itself, and no process holds whole weights.
        """
        self._begin(step)
        if self._left == 0:
            return {}
        found = logps(self.model, batch, self._left, keep=self.follows_steps, sharded=self.sharded)
        if found.by_itself:
            self._say("logps does not call the model once for both sides: each log-probability is differentiated alone")
        gradients = found.gradients
        ones = torch.ones_like(gradients.cosine)
        self._left = None if self._left is None else self._left - len(ones)
        pull = Pull(gradients=gradients, d_w=ones, d_l=ones)
        kept = Kept(pieces=found.pieces, weights=torch.stack([ones, ones], 1), which=ones.bool())
        self._kept.append(kept)
        self._announce_coverage(gradients.coverage, found.uncovered)
        self._measured.append(gradients)
        metrics = _metrics(pull, step_size(found.pairs), extra=True)
        return {f"{PREFIX}{name}": values for name, values in metrics.items()}

    def stepped(self, step: int) -> dict[str, Tensor]:
        """Return what is logged of the optimiser's own step, after it; nothing where it was not measured."""
        if step != self._step:
            return {}
        self._note_layers()
        if self._snapshot is None:
            return {}
        parameters = trainable_parameters(self.model)
        changes = {key: self._snapshot.change(parameter.value) for key, parameter in parameters.items()}
        moved = [kept.along(changes)[:, :2] for kept in self._kept]
        device = next(iter(changes.values())).device
        both = torch.cat(moved) if moved else torch.zeros(0, 2, dtype=torch.float64, device=device)
        self._snapshot, self._kept = None, []
        return {f"{PREFIX}{name}": values for name, values in step_metrics(both[:, 0], both[:, 1]).items()}

    # ------------------------------------------------------------------------------------------------------------

    def _verify(self, watch: PairWatch, found: Sequence[Found]) -> None:
        """Build whole gradients of a pair or two and compare."""
        self._unverified = False
        one = found[0]
        some = slice(0, VERIFIED)
        rows, gradients = rows_of_pairs(watch.batch, one.pairs[some]), one.pull.gradients
        with without_dropout(self.model) if drops(self.model) else nullcontext():
            if not self.model.training:  # else every forward would drop something else
                gradients = measure(self.model, self.head, rows).gradients
            exact = brute_force(self.model, self.head, rows)
        seen = {name: products[some, :2, :2] for name, products in gradients.by_parameter.items()}
        error = largest_error(PairGradients(by_parameter=seen, coverage=1.0), exact)
        weight = next(self.model.parameters())
        exact_types = weight.dtype in (torch.float32, torch.float64)
        tolerance = 1e-4 if exact_types and not torch.is_autocast_enabled(weight.device.type) else 5e-2
        verdict = "as it should be" if error <= tolerance else f"more than {tolerance:g}: do not trust the figures"
        self._say(f"inner products of whole gradients of {len(one.pairs[some])} pairs differ by {error:.1e}, {verdict}")
        self.max_rel_error = error

    max_rel_error: float | None = None
    """Largest difference from whole gradients, relative to the norms; None until it was verified."""

    def _announce_coverage(self, coverage: float, uncovered: Mapping[str, str]) -> None:
        if uncovered and coverage < 1:
            name, why = next(iter(uncovered.items()))
            more = f" and {len(uncovered) - 1} more" if len(uncovered) > 1 else ""
            self._say(f"{coverage:.1%} of the trained weights are covered; not {name}{more}: {why}")

    def _note_layers(self) -> None:
        if self.folder is None or not self._measured:
            return
        parts: dict[str, list[Tensor]] = {}
        for gradients in self._measured:
            for name, products in gradients.by_layer().items():
                parts.setdefault(name, []).append(products[:, :2, :2])
        layers = {name: torch.cat(products).mean(0).tolist() for name, products in parts.items()}
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / LAYERS_FILE).open("a", encoding="utf-8") as out:
            out.write(json.dumps({"step": self._step, "layers": layers}) + "\n")
        self._measured = []

    def _say(self, text: str) -> None:
        if text not in self._said:
            self._said.add(text)
            say(f"entanglement: {text}")


def _metrics(pull: Pull, step_size: float | Tensor, *, extra: bool) -> dict[str, Tensor]:
    metrics = pull.metrics(step_size)
    like = metrics["cosine"]
    coverage = torch.full_like(like, pull.gradients.coverage)
    return metrics | {"coverage": coverage, "extra_pass": torch.full_like(like, float(extra))}
