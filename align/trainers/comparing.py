"""What a trainer whose policy is compared with a reference has of it: its weights, or what they said of the rows."""

from abc import abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import datasets
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from align.data.cache import cache_root
from align.data.logp_store import PromptAndCompletion
from align.models.identity import depends_on_batch
from align.models.reference import AdapterOffReference, FrozenReference, KeptReference, Reference
from align.objectives.base import Objective
from align.objectives.mixture import name_of
from align.trainers.base import AlignmentTrainer
from align.trainers.kept import EXACT, LOW, Keeper, keep_references
from align.trainers.speed import Speed


class ComparingTrainer(AlignmentTrainer):
    """Abstract: trains a policy that an objective may compare with a reference.

    Attributes:
        objective: what is minimised.
        reference: what the policy is compared with; None where the objective needs nothing.
        speed: how forwards are computed.
        length_limit: of rows, in tokens; None where nothing sets one.
        start_margin: how far policy and reference were apart before the first update, in nats; None until then.
    """

    objective: Objective
    reference: Reference | None
    speed: Speed
    start_margin: float | None = None
    length_limit: int | None
    sees_all: bool | None = None
    """Whether training sees every row, where this run stands for a longer one; None where its arguments say so."""
    _moves = False
    _kept = False
    _keepers: Sequence[Keeper] = ()
    _rows_kept: Sequence[Any] = ()

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

    @property
    def exact(self) -> bool:
        """Whether numbers of the policy and its reference are float32 or finer, weights and arithmetic."""
        policy: Any = self.model
        weights = {parameter.dtype for parameter in policy.parameters()}
        arithmetic = self.accelerator.mixed_precision == "no" and not self.args.tf32
        return arithmetic and not weights & {torch.bfloat16, torch.float16}

    def check_start(self, policy: Tensor, reference: Tensor | None, lengths: Tensor) -> None:
        """Where policy and reference are one function, their log-ratios are 0 before the first update.

        They may differ by as much a token as was accepted when the reference's were kept.

        Args:
            policy: log-probabilities of sequences, in the graph; NaN for those that were not computed.
            reference: the same under the reference.
            lengths: of the sequences, in tokens.

        Raises:
            ValueError: if they are not.
        """
        first = self.start_margin is None and policy.requires_grad and self.state.global_step == 0
        if not first or reference is None or self.reference is None or not self.reference.equals_policy_at_start:
            return
        there = ~policy.detach().isnan()
        gap = (policy - reference).detach().abs().where(there, 0.0)
        size = reference.abs() + lengths  # a token counts as a nat at least
        low = LOW if isinstance(self.reference, KeptReference) else 1e-2
        tolerance = EXACT if self.exact else low
        if not bool((gap <= tolerance * size)[there].all()):
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
        """Compute the reference's log-probabilities of rows that have none on disk, and put its weights by.

        Training and evaluation call it; a second call does nothing.

        Args:
            asked: whether it must work, whatever ``speed`` says.

        Raises:
            ValueError: if it must, and cannot.
        """
        if self._kept and not asked:
            return None
        self._kept = True
        keepers = keep_references(self, asked=asked)
        if not keepers:
            return None
        self._keepers, self._rows_kept = keepers, list(self.row_sets().values())
        self.read_kept(keepers)
        return keepers[0]

    def read_kept(self, keepers: Sequence[Keeper]) -> None:
        """Have batches read what keepers, one for each of :meth:`compared`, have on disk, and put weights by."""
        assert self.reference is not None
        collator: Any = self.data_collator
        collator.kept = keepers[0].store
        self.reference = KeptReference(self.reference, cache_root())

    def compared(self) -> list[tuple[Reference, Callable[[datasets.Dataset], Iterator[PromptAndCompletion]]]]:
        """Return each reference with what it computes of a data set."""
        return [] if self.reference is None else [(self.reference, self.sequences_of)]

    def keeps_no_reference(self) -> str:
        """Return why log-probabilities of the reference cannot be kept, for people; empty where they can."""
        objective = self.objective
        if self.reference is None:
            return f"objective {name_of(objective)!r} compares with no reference"
        if self._moves:
            return "the reference follows the policy"
        if isinstance(self.reference, AdapterOffReference) and self.engine.shards_weights:
            return f"the policy without its adapters is sharded under {self.engine}, and not yet before training"
        for need, what in (
            ("prompt", "prompts"),
            ("collision", "whole distributions"),
            ("mismatched", "completions of other prompts"),
        ):
            if getattr(objective, f"needs_{need}"):
                return f"objective {name_of(objective)!r} reads the reference's log-probabilities of {what}"
        models = (each.module if isinstance(each, FrozenReference) else self.model for each, _ in self.compared())
        return next(filter(None, (depends_on_batch(model, self.length_limit) for model in models)), "")

    @abstractmethod
    def sequences_of(self, rows: datasets.Dataset) -> Iterator[PromptAndCompletion]:
        """Yield what the reference computes of prepared rows: ids of prompts and of completions."""

    def row_sets(self) -> dict[str, datasets.Dataset]:
        """Return the data sets by name."""
        held_out = self.eval_dataset if isinstance(self.eval_dataset, dict) else {"held-out": self.eval_dataset}
        sets = {"training": self.train_dataset, **held_out}
        return {str(name): rows for name, rows in sets.items() if rows is not None}

    def sees_all_rows(self, args: TrainingArguments | None = None) -> bool:
        """Return whether training sees every row at least once, by its own arguments or by others."""
        rows: Any = self.train_dataset
        if self.sees_all is not None or rows is None:
            return bool(self.sees_all)
        args = self.args if args is None else args
        if args.max_steps > 0:
            return args.max_steps * self.rows_of_step >= len(rows)
        return args.num_train_epochs >= 1

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """Train, the reference's log-probabilities at hand."""
        self.keep_reference()
        return super().train(*args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Evaluate, the reference's log-probabilities at hand."""
        self.keep_reference()
        return super().evaluate(*args, **kwargs)

    def _get_dataloader(self, dataset: Any, *args: Any, **kwargs: Any) -> DataLoader[Any]:
        """Return batches of rows; what the reference says of such that came later is computed before."""
        if self._keepers and not any(dataset is known for known in self._rows_kept):
            for keeper, (_, sequences_of) in zip(self._keepers, self.compared(), strict=True):
                keeper.keep(sequences_of(dataset), "reference, rows that came later")
            self._rows_kept = [*self._rows_kept, dataset]
        return super()._get_dataloader(dataset, *args, **kwargs)
