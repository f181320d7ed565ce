"""``disentangle`` in a trainer of pairs: what stands between the policy's log-probabilities and the objective."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from align.diagnostics.masks import TokenMasks
from align.diagnostics.measure import Rows
from align.diagnostics.norms import NormProbe
from align.diagnostics.remedies import Calibrated, Normalised, Reweighting
from align.models.logprobs import output_head
from align.objectives.logps import PairTokenLogps
from align.recipe.disentangle import Calibrate, Disentangle, Normalise, Sparse, name_of_method
from align.trainers.base import AlignmentTrainer
from align.trainers.engine import PLAIN, Engine


def refuse_to_part(parting: "Parting", engine: Engine, *, plain: bool) -> None:
    """Refuse a remedy that the objective, a subclass or the engine leaves no place for.

    Raises:
        ValueError: saying which, and the way out.
    """
    if not plain:
        raise ValueError(
            f"disentangle: {parting.name} needs both sides of a pair in one forward: choose an objective that reads "
            "both, and a trainer that does not replace forward_logps"
        )
    if engine.shards_weights and parting.masks is not None and parting.masks.settings.mask == "learned":
        raise ValueError(
            f"disentangle: a learned mask cannot work under {engine}, which shards weights: use ddp, zero1 or zero2, "
            "or {name: sparse, mask: contrast}"
        )


class Parting:
    """A remedy beside a trainer.

    Args:
        settings: which remedy.
        model: the policy, before anything wraps it.
    """

    def __init__(self, settings: Disentangle, model: Any) -> None:
        self.settings = settings
        self.trainer: AlignmentTrainer | None = None
        self.masks = TokenMasks(settings, output_head(model)) if isinstance(settings, Sparse) else None
        self._reweighting: Reweighting | None = None

    @property
    def reweighting(self) -> Reweighting | None:
        """The remedy that multiplies pulls, on the model as the engine has made it; None for masks."""
        if self.masks is not None or self._reweighting is not None:
            return self._reweighting
        assert self.trainer is not None
        model = self.trainer.accelerator.unwrap_model(self.trainer.model)
        head_only = isinstance(self.settings, Calibrate) and self.settings.norms == "head"
        own_pass = self.trainer.engine.name not in PLAIN
        probe = NormProbe(model, output_head(model), own_pass=own_pass, head_only=head_only)
        if isinstance(self.settings, Normalise):
            self._reweighting = Normalised(self.settings, probe, self._mean)
        elif isinstance(self.settings, Calibrate):
            self._reweighting = Calibrated(self.settings, probe, self._mean)
        return self._reweighting

    @contextmanager
    def watching(self, batch: Mapping[str, Tensor], *, training: bool) -> Iterator[None]:
        """Watch the forward inside, which computes the policy's log-probabilities of a batch of pairs."""
        if self.masks is not None:
            with self.masks.watching():
                yield
        elif training and torch.is_grad_enabled() and self.reweighting is not None:
            assert self.trainer is not None
            total = len(batch["input_ids"]) // 2
            numbers = torch.arange(total, device=batch["input_ids"].device)
            rows = Rows(
                input_ids=batch["input_ids"],
                attention_mask=batch["attention_mask"],
                completion_mask=batch["completion_mask"],
                groups=torch.stack([numbers, numbers + total], 1),
            )
            counts = batch["weight"] != 0
            counts = counts & batch["real"] if "real" in batch else counts
            with self.reweighting.watching(rows.trimmed, self.trainer.state.global_step, counts):
                yield
        else:
            yield

    def applied(
        self, policy: PairTokenLogps, reference: PairTokenLogps | None, batch: Mapping[str, Tensor], *, training: bool
    ) -> tuple[PairTokenLogps, PairTokenLogps | None]:
        """Return what the objective reads."""
        if self.masks is not None:
            self.masks.read(policy, batch)
            return self.masks.masked(policy), None if reference is None else self.masks.masked(reference)
        if training and torch.is_grad_enabled() and self.reweighting is not None:
            return self.reweighting.scaled(policy), reference
        return policy, reference

    def settled(self, losses: Tensor, policy: PairTokenLogps, *, training: bool) -> tuple[Tensor, dict[str, Tensor]]:
        """Return the losses with what the remedy adds, and what is logged of it."""
        if self.masks is not None:
            cost = self.masks.penalty(policy)
            weights = {"disentangle/mask": self.masks.mean(policy).detach()}
            return (losses if cost is None else losses + cost.to(losses.dtype)), weights
        if training and torch.is_grad_enabled() and self.reweighting is not None:
            found = {"log_alpha": self.reweighting.settle(losses).log(), **self.reweighting.metrics()}
            return losses, {f"disentangle/{name}": values for name, values in found.items()}
        return losses, {}

    def release(self) -> None:
        """Take everything off the model, after a batch's backward."""
        if self._reweighting is not None:
            self._reweighting.release()

    def save(self, folder: Path) -> None:
        """Keep in a checkpoint what has to be continued."""
        if self.masks is not None:
            self.masks.save(folder)
        elif self.reweighting is not None:
            self.reweighting.save(folder)

    def load(self, folder: Path) -> None:
        """Take from a checkpoint what was kept."""
        if self.masks is not None:
            self.masks.load(folder)
        elif self.reweighting is not None:
            self.reweighting.load(folder)

    @property
    def name(self) -> str:
        """As recipes call it."""
        return name_of_method(self.settings)

    def _mean(self, numbers: Tensor) -> Tensor:
        assert self.trainer is not None
        gathered: Tensor = self.trainer.accelerator.gather(numbers[None])
        return gathered.mean(0)
