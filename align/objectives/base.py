"""What an objective is: token weighting, score, link.

The trainer asks an objective for the loss of each pair; reduction over pairs, weights of rows and logging are the
trainer's. An objective sees log-probabilities only: no model, no batch, no configuration but its own settings. It
declares what it needs, and nothing else is computed for it.

Three kinds, by what the loss is a function of:

- :class:`PairObjective`: ``link(score)`` of one score a pair, perhaps with a regulariser;
- :class:`SidedObjective`: a loss of the chosen plus a loss of the rejected, which single completions train too;
- :class:`Objective` itself: anything else, also what couples the pairs of a batch or reads single tokens.
"""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.logps import PairLogps, PairTokenLogps, SequenceLogps

Side = Literal["chosen", "rejected"]
SIDES: tuple[Side, ...] = ("chosen", "rejected")


class Objective(ABC):
    """A loss of preference pairs; subclass as a frozen dataclass whose fields are its settings.

    Attributes:
        needs_reference: whether the reference is read. Where False, the trainer loads none and ``reference`` is None.
        needs_lengths: whether lengths of completions are read.
        needs_scores: whether scores of completions are read (columns ``chosen_score``, ``rejected_score``).
        needs_prompt: whether log-probabilities of prompt tokens are read.
        needs_collision: whether the sum of squared probabilities at each token is read.
        needs_draws: whether random numbers for each token are read.
        needs_mismatched: whether the log-ratio of completions of other prompts is read; only in unpaired training.
        couples_pairs: whether the loss of a pair depends on the other pairs of its batch.
        reads: sides whose log-probability the loss depends on; the trainer runs no forward of another one.
    """

    needs_reference: ClassVar[bool] = True
    needs_lengths: ClassVar[bool] = False
    needs_scores: ClassVar[bool] = False
    needs_prompt: ClassVar[bool] = False
    needs_collision: ClassVar[bool] = False
    needs_draws: ClassVar[bool] = False
    needs_mismatched: ClassVar[bool] = False
    couples_pairs: ClassVar[bool] = False
    reads: ClassVar[tuple[Side, ...]] = SIDES

    @property
    def needs(self) -> tuple[str, ...]:
        """What is read beside the policy's log-probabilities, by name: ``("reference", "lengths")``."""
        return tuple(need for need in NEEDS if getattr(self, f"needs_{need}"))

    @property
    def own_name(self) -> str | None:
        """What an objective that is not registered is called in reports; None for its class's name."""
        return None

    @property
    def reward_scale(self) -> float:
        """Implicit reward of one nat of log-ratio: beta where an objective has one, else 1."""
        return 1.0

    @property
    def mean_rewards(self) -> bool:
        """Whether rewards are of nats a token: objectives that compare length-normalised log-probabilities."""
        return False

    def weigh(self, tokens: PairTokenLogps) -> PairLogps:
        """Turn token log-probabilities into sequence log-probabilities; by default their plain sum."""
        return tokens.summed()

    @abstractmethod
    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair, given weighed log-probabilities."""

    def __call__(self, policy: PairLogps, reference: PairLogps | None = None) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair, unreduced, given weighed log-probabilities.

        Raises:
            ValueError: if the objective needs a reference and got none.
        """
        if self.needs_reference and reference is None:
            raise ValueError(f"{type(self).__name__} compares with a reference; pass its log-probabilities")
        return self.losses(policy, reference)

    def of_tokens(self, policy: PairTokenLogps, reference: PairTokenLogps | None = None) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair, unreduced, given the log-probabilities of its tokens: what training calls.

        Raises:
            ValueError: as a call.
        """
        return self(self.weigh(policy), None if reference is None else self.weigh(reference))

    def anchor(self, policy: PairLogps) -> Float[Tensor, " pairs"] | None:
        """Return the part of the loss that is a likelihood of the chosen, or None: label smoothing leaves it there."""
        return None

    def score_faults(
        self, chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
    ) -> list[tuple[Bool[Tensor, " pairs"], str]]:
        """Return which pairs of a data set have scores the objective cannot be trained on, each kind with its fault."""
        return []

    def rewards(
        self, policy: PairLogps, reference: PairLogps | None
    ) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """Return the implicit rewards of chosen and rejected, for logging: ``reward_scale * log-ratio``.

        Without a reference, the policy's own log-probabilities take the place of the log-ratios; a token, where
        ``mean_rewards``.
        """
        chosen, rejected = policy.chosen, policy.rejected
        if reference is not None:
            chosen, rejected = chosen - reference.chosen, rejected - reference.rejected
        if self.mean_rewards:
            chosen, rejected = chosen / policy.chosen_lengths, rejected / policy.rejected_lengths
        return self.reward_scale * chosen, self.reward_scale * rejected


NEEDS = ("reference", "lengths", "scores", "prompt", "collision", "draws", "mismatched")
"""What objectives can declare that they need, in the order it is listed."""


class PairObjective(Objective):
    """A loss that is ``link(score)``, one score a pair, plus an optional regulariser.

    A subclass gives :meth:`score` and :meth:`link`; one whose tokens do not all count alike gives :meth:`weigh` too.
    """

    @abstractmethod
    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return what the objective compares, in nats; the larger, the more the chosen is preferred."""

    @abstractmethod
    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair given its score."""

    def regulariser(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"] | None:
        """Return what is added to the linked score, or None; by default the anchor."""
        return self.anchor(policy)

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return ``link(score) + regulariser``."""
        linked = self.link(self.score(policy, reference))
        extra = self.regulariser(policy, reference)
        return linked if extra is None else linked + extra


class SidedObjective(Objective):
    """A loss that is a function of the chosen plus a function of the rejected: it trains on single completions too.

    A subclass gives a link for each side it reads, and :meth:`side_score` where that is not the log-ratio.
    """

    def side_score(self, rows: SequenceLogps, reference: SequenceLogps | None) -> Float[Tensor, " sequences"]:
        """Return what the links of completions are of; by default the log-ratio of policy over reference, in nats."""
        assert reference is not None
        return rows.logps - reference.logps

    def chosen_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the loss of desirable completions given their scores."""
        return torch.zeros_like(score)

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the loss of undesirable completions given their scores."""
        return torch.zeros_like(score)

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the loss of both sides together."""
        parts = []
        if "chosen" in self.reads:
            other = None if reference is None else reference.chosen_side
            parts.append(self.chosen_link(self.side_score(policy.chosen_side, other)))
        if "rejected" in self.reads:
            other = None if reference is None else reference.rejected_side
            parts.append(self.rejected_link(self.side_score(policy.rejected_side, other)))
        return torch.stack(parts).sum(0) if len(parts) > 1 else parts[0]

    def of_rows(
        self, policy: SequenceLogps, reference: SequenceLogps | None, desirable: Bool[Tensor, " sequences"]
    ) -> Float[Tensor, " sequences"]:
        """Return the loss of single completions; 0 for those of a side that is not read."""
        losses = 0.0 * policy.logps  # in the graph, also where no row is read
        for side, rows in (("chosen", desirable), ("rejected", ~desirable)):
            if side in self.reads and bool(rows.any()):
                score = self.side_score(policy.pick(rows), None if reference is None else reference.pick(rows))
                link = self.chosen_link if side == "chosen" else self.rejected_link
                losses = losses.masked_scatter(rows, link(score).to(losses.dtype))
        return losses


class TokenObjective(Objective):
    """A loss that reads single tokens in a way that no weighing of them can express."""

    @abstractmethod
    def of_tokens(self, policy: PairTokenLogps, reference: PairTokenLogps | None = None) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair, unreduced."""

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Refuse: sequence log-probabilities do not say enough.

        Raises:
            ValueError: always.
        """
        raise ValueError(f"{type(self).__name__} is no function of sequence log-probabilities; call of_tokens")
