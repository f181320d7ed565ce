"""What a trainer whose policy is compared with a reference has of it: its weights, or what they said of the rows."""

from abc import abstractmethod
from collections.abc import Callable, Iterator
from typing import Any

import datasets
import torch
from torch import Tensor, nn

from align.data.logp_store import PromptAndCompletion
from align.models.reference import AdapterOffReference, KeptReference, Reference
from align.objectives.base import Objective
from align.objectives.mixture import name_of
from align.trainers.base import AlignmentTrainer
from align.trainers.kept import Keeper, keep_reference
from align.trainers.speed import Speed


class ComparingTrainer(AlignmentTrainer):
    """Abstract: trains a policy that an objective may compare with a reference.

    Attributes:
        objective: what is minimised.
        reference: what the policy is compared with; None where the objective needs nothing.
        speed: how forwards are computed.
        start_margin: how far policy and reference were apart before the first update, in nats; None until then.
    """

    objective: Objective
    reference: Reference | None
    speed: Speed
    start_margin: float | None = None
    _moves = False
    _kept = False

    def under_reference(self, model: nn.Module, forward: Callable[[nn.Module], Any]) -> Any:
        """Return what ``forward`` gives for the reference, without gradient; None where there is no reference.

        Args:
            model: the policy as it is called in training.
            forward: takes a model.
        """
        if self.reference is None:
            return None
        with torch.no_grad(), self.reference.model(model) as reference:
            return forward(reference)

    def check_start(self, policy: Tensor, reference: Tensor | None) -> None:
        """Where policy and reference are one function, their log-ratios are 0 before the first update.

        Args:
            policy: log-probabilities of sequences, in the graph; NaN for those that were not computed.
            reference: the same under the reference.

        Raises:
            ValueError: if they are not.
        """
        first = self.start_margin is None and policy.requires_grad and self.state.global_step == 0
        if not first or reference is None or self.reference is None or not self.reference.equals_policy_at_start:
            return
        gap = (policy - reference).detach().abs().nan_to_num()
        size = reference.abs().clamp(min=1.0).nan_to_num(nan=1.0)
        tolerance = 1e-2 if self.accelerator.mixed_precision != "no" else 1e-4
        if not bool((gap <= tolerance * size).all()):
            raise ValueError(
                f"policy and reference ({self.reference.description}) differ by {float(gap.max()):.4g} nats "
                "before the first update, though they should be one model. Was the model given with a trained adapter? "
                "Then use reference='base'. Does it drop or add noise at random while it trains? Then switch that off"
            )
        self.start_margin = self.start_gap(policy.detach(), reference)

    def start_gap(self, policy: Tensor, reference: Tensor) -> float:
        """Return what the run's summary says of the start: the largest log-ratio, in nats."""
        return float((policy - reference).abs().nan_to_num().max())

    def keep_reference(self, *, asked: bool = False) -> Keeper | None:
        """Compute the reference's log-probabilities of rows that have none on disk, and let go of its weights.

        Training and evaluation call it; a second call does nothing.

        Args:
            asked: whether it must work, whatever ``speed`` says.

        Raises:
            ValueError: if it must, and cannot.
        """
        if self._kept and not asked:
            return None
        self._kept = True
        keeper = keep_reference(self, asked=asked)
        if keeper is not None and self.reference is not None:
            collator: Any = self.data_collator
            collator.kept = keeper.store
            self.reference = KeptReference(self.reference)
        return keeper

    def keeps_no_reference(self) -> str:
        """Return why log-probabilities of the reference cannot be kept, for people; empty where they can."""
        if self._moves:
            return "the reference follows the policy"
        if isinstance(self.reference, AdapterOffReference) and self.engine.shards_weights:
            return f"the policy without its adapters is sharded under {self.engine}, and not yet before training"
        objective = self.objective
        for need, what in (
            ("prompt", "prompts"),
            ("collision", "whole distributions"),
            ("mismatched", "completions of other prompts"),
        ):
            if getattr(objective, f"needs_{need}"):
                return f"objective {name_of(objective)!r} reads the reference's log-probabilities of {what}"
        return ""

    @abstractmethod
    def sequences_of(self, rows: datasets.Dataset) -> Iterator[PromptAndCompletion]:
        """Yield what the reference computes of prepared rows: ids of prompts and of completions."""

    def row_sets(self) -> dict[str, datasets.Dataset]:
        """Return the data sets by name."""
        held_out = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"held-out": self.eval_dataset}
        sets = {"training": self.train_dataset, **held_out}
        return {str(name): rows for name, rows in sets.items() if rows is not None}

    def sees_all_rows(self) -> bool:
        """Return whether training sees every row at least once."""
        rows: Any = self.train_dataset
        if rows is None:
            return False
        if self.args.max_steps > 0:
            return self.args.max_steps * self.rows_of_step >= len(rows)
        return self.args.num_train_epochs >= 1

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, the reference's log-probabilities at hand."""
        self.keep_reference()
        return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, the reference's log-probabilities at hand."""
        self.keep_reference()
        return super().evaluate(*args, **kwargs)
