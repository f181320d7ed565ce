"""Self-supervised preference degrees beside any objective: Li et al., 2024, arXiv:2409.17791."""

from collections.abc import Mapping
from dataclasses import replace

import datasets
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from align.data.degree_batches import DegreeCollator, UnpairedDegreeCollator
from align.objectives.base import SIDES, Objective
from align.objectives.logps import PairLogps
from align.trainers.base import RowLosses
from align.trainers.check import refuse_unread_versions
from align.trainers.degrees import LearnsDegrees
from align.trainers.pair import ExtraLoss, PairTrainer
from align.trainers.unpaired import UnpairedTrainer


class SPOTrainer(LearnsDegrees, PairTrainer):
    """Trains on pairs, and beside them learns to tell how much of a response's key content is gone.

    The loss of a pair is the objective's, plus ``gamma`` times the mean degree loss over the versions of its chosen
    response, plus ``gamma_rejected`` times that of its rejected one. What entanglement is measured of is as it is
    without them. What the paper's module looks like is not known; the defaults are ours.

    Args:
        model: as :class:`~align.trainers.pair.PairTrainer`, and so for all other arguments but ``spo``.
        args: transformers' training arguments.
        spo: how versions are made, what tells them apart, and what that weighs; None for the defaults.

    Raises:
        ValueError: as there; or if weights are sharded, the model has no such layer, or an extractor is not there.
    """

    def extra_loss(self, model: nn.Module, batch: Mapping[str, Tensor], policy: PairLogps) -> ExtraLoss:
        """Return the degree loss of each pair, and how well degrees were told."""
        return self.degree_loss(model, batch, policy.chosen)

    @property
    def _trained_sides(self) -> tuple[str, ...]:
        own = (type(self).objective_loss, type(self).extra_loss)  # what a subclass reads is not known
        return self.objective.reads if own == (PairTrainer.objective_loss, SPOTrainer.extra_loss) else SIDES

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> DegreeCollator:
        """Pairs as rows, and beside them their versions."""
        sides = self.spo.versions.degraded_sides
        return DegreeCollator(int(str(tokenizer.pad_token_id)), sides, self.packing)


class UnpairedSPOTrainer(LearnsDegrees, UnpairedTrainer):
    """The same on single completions: desirable ones are the chosen side, undesirable ones the rejected.

    Args:
        model: as :class:`~align.trainers.unpaired.UnpairedTrainer`, and so for all other arguments but ``spo``.
        args: transformers' training arguments.
        spo: as :class:`SPOTrainer`.

    Raises:
        ValueError: as there.
    """

    completions = ("completion",)

    def check_objective(self, objective: Objective) -> None:
        """Refuse an objective of pairs, or one that does not read what versions are made of.

        Raises:
            ValueError: naming it.
        """
        super().check_objective(objective)
        refuse_unread_versions(self.spo, objective)

    def usable_rows(self, rows: datasets.Dataset, name: str, tokenizer: PreTrainedTokenizerBase) -> datasets.Dataset:
        """Return the rows with versions of their completions.

        Raises:
            ValueError: if none of the rows to train on is of a side that versions are made of.
        """
        found = super().usable_rows(rows, name, tokenizer)
        there = {SIDES[0] if desirable else SIDES[1] for desirable in found["desirable"][:]}
        if name == "train_dataset" and (lacking := set(self.spo.versions.degraded_sides) - there):
            kind = "desirable" if "chosen" in lacking else "undesirable"
            raise ValueError(
                f"{name}: no row is {kind}, and spo.versions.sides={self.spo.versions.sides} makes versions of such; "
                f"set it to {min(there)}"
            )
        return found

    def row_losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return the loss and the metrics of each completion, its degree loss added."""
        found = super().row_losses(model, batch)
        extra = self.degree_loss(model, batch, found.losses)
        metrics = {**found.metrics, **extra.metrics}
        return replace(found, losses=found.losses + extra.losses, metrics=metrics, partial=frozenset(metrics))

    def collator(self, tokenizer: PreTrainedTokenizerBase) -> UnpairedDegreeCollator:
        """Completions as they are, and beside them their versions."""
        return UnpairedDegreeCollator(super().collator(tokenizer), self.spo.versions.degraded_sides)
