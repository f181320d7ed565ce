"""Objectives made of objectives: weighted sums, and labels that are wrong now and then. Both take any objective."""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import reduce
from operator import add

from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.base import NEEDS, SIDES, Objective, SidedObjective
from align.objectives.logps import PairLogps, PairTokenLogps, SequenceLogps
from align.objectives.registry import OBJECTIVES
from align.objectives.settings import check_positive, check_smoothing


def trains_unpaired(objective: Objective) -> bool:
    """Return whether an objective can be trained on single completions, each desirable or not."""
    if isinstance(objective, Mixture):
        return all(trains_unpaired(part.objective) for part in objective.parts)
    if isinstance(objective, Smoothed):
        return trains_unpaired(objective.objective)
    return isinstance(objective, SidedObjective)


def row_losses(
    objective: Objective, policy: SequenceLogps, reference: SequenceLogps | None, desirable: Bool[Tensor, " sequences"]
) -> Float[Tensor, " sequences"]:
    """Return the loss of single completions.

    Raises:
        ValueError: if the objective, or a part of it, is a function of pairs.
    """
    if isinstance(objective, Mixture):
        parts = (p.weight * row_losses(p.objective, policy, reference, desirable) for p in objective.parts)
        return reduce(add, parts)
    if isinstance(objective, Smoothed):
        right = row_losses(objective.objective, policy, reference, desirable)
        wrong = row_losses(objective.objective, policy, reference, ~desirable)
        return (1 - objective.label_smoothing) * right + objective.label_smoothing * wrong
    if not isinstance(objective, SidedObjective):
        raise ValueError(f"objective {name_of(objective)!r} is a function of pairs, not of single completions")
    return objective.of_rows(policy, reference, desirable)


def name_of(objective: Objective) -> str:
    """Return what an objective is called: its registered name, or ``dpo + 0.2 sft`` for a mixture.

    Examples:
        >>> parts = (Part(objective=OBJECTIVES.build("dpo")), Part(objective=OBJECTIVES.build("sft"), weight=0.2))
        >>> name_of(Mixture(parts=parts))
        'dpo + 0.2 sft'
    """
    if isinstance(objective, Mixture):
        names = (f"{'' if p.weight == 1 else f'{p.weight:g} '}{name_of(p.objective)}" for p in objective.parts)
        return " + ".join(names)
    if isinstance(objective, Smoothed):
        return f"{name_of(objective.objective)} (label_smoothing {objective.label_smoothing:g})"
    return objective.own_name or OBJECTIVES.name_of(objective)


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """One objective of a mixture, and its weight.

    Attributes:
        objective: any objective.
        weight: what its loss is multiplied by, > 0.
    """

    objective: Objective
    weight: float = 1.0

    def __post_init__(self) -> None:
        check_positive(weight=self.weight)


@dataclass(frozen=True, slots=True, kw_only=True)
class Smoothed(Objective):
    """The expected loss where each label is wrong with some probability: sides are swapped with it.

    A likelihood of the chosen that is part of the loss (``anchor``) stays with the chosen, as in TRL's CPOTrainer.

    Attributes:
        objective: any objective.
        label_smoothing: probability that chosen and rejected are to be exchanged, at least 0 and below 0.5.
    """

    objective: Objective
    label_smoothing: float

    def __post_init__(self) -> None:
        check_smoothing(self.label_smoothing)

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Both sides, as soon as labels may be wrong."""
        return SIDES if self.label_smoothing else self.objective.reads

    @property
    def couples_pairs(self) -> bool:  # type: ignore[override]
        """As the objective within."""
        return self.objective.couples_pairs

    @property
    def reward_scale(self) -> float:
        """As the objective within."""
        return self.objective.reward_scale

    @property
    def mean_rewards(self) -> bool:
        """As the objective within."""
        return self.objective.mean_rewards

    def weigh(self, tokens: PairTokenLogps) -> PairLogps:
        """As the objective within."""
        return self.objective.weigh(tokens)

    def anchor(self, policy: PairLogps) -> Float[Tensor, " pairs"] | None:
        """As the objective within."""
        return self.objective.anchor(policy)

    def score_faults(
        self, chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
    ) -> list[tuple[Bool[Tensor, " pairs"], str]]:
        """As the objective within."""
        return self.objective.score_faults(chosen, rejected)

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the expected loss, given weighed log-probabilities."""
        right = self.objective(policy, reference)
        wrong = self.objective(policy.swapped(), None if reference is None else reference.swapped())
        return self._expected(right, wrong, policy)

    def of_tokens(self, policy: PairTokenLogps, reference: PairTokenLogps | None = None) -> Float[Tensor, " pairs"]:
        """Return the expected loss, given the log-probabilities of tokens."""
        right = self.objective.of_tokens(policy, reference)
        wrong = self.objective.of_tokens(policy.swapped(), None if reference is None else reference.swapped())
        return self._expected(right, wrong, self.weigh(policy))

    def _expected(
        self, right: Float[Tensor, " pairs"], wrong: Float[Tensor, " pairs"], policy: PairLogps
    ) -> Float[Tensor, " pairs"]:
        mine, theirs = self.anchor(policy), self.anchor(policy.swapped())
        if mine is not None and theirs is not None:
            wrong = wrong - theirs + mine
        return (1 - self.label_smoothing) * right + self.label_smoothing * wrong


@dataclass(frozen=True, slots=True, kw_only=True)
class Mixture(Objective):
    """A weighted sum of objectives. Rewards, which are for logging only, are those of the first part.

    Attributes:
        parts: at least one objective with its weight.
    """

    parts: tuple[Part, ...]

    def __post_init__(self) -> None:
        if not self.parts:
            raise ValueError("a mixture needs at least one objective")

    @property
    def reads(self) -> tuple[str, ...]:  # type: ignore[override]
        """Sides that any part reads."""
        return tuple(side for side in SIDES if any(side in part.objective.reads for part in self.parts))

    @property
    def couples_pairs(self) -> bool:  # type: ignore[override]
        """Whether any part couples pairs."""
        return any(part.objective.couples_pairs for part in self.parts)

    @property
    def reward_scale(self) -> float:
        """That of the first part."""
        return self.parts[0].objective.reward_scale

    @property
    def mean_rewards(self) -> bool:
        """Those of the first part."""
        return self.parts[0].objective.mean_rewards

    def score_faults(
        self, chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
    ) -> list[tuple[Bool[Tensor, " pairs"], str]]:
        """Those of all parts."""
        return [fault for part in self.parts for fault in part.objective.score_faults(chosen, rejected)]

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the weighted sum of the parts' losses of the same log-probabilities."""
        return self._sum(
            part.objective(policy, reference if part.objective.needs_reference else None) for part in self.parts
        )

    def of_tokens(self, policy: PairTokenLogps, reference: PairTokenLogps | None = None) -> Float[Tensor, " pairs"]:
        """Return the weighted sum of the parts' losses, each with its own token weighting."""
        return self._sum(
            part.objective.of_tokens(policy, reference if part.objective.needs_reference else None)
            for part in self.parts
        )

    def _sum(self, losses: Iterable[Float[Tensor, " pairs"]]) -> Float[Tensor, " pairs"]:
        return reduce(add, (part.weight * loss for part, loss in zip(self.parts, losses, strict=True)))


def _of_parts(need: str) -> property:
    def needed(self: Mixture) -> bool:
        return any(getattr(part.objective, need) for part in self.parts)

    return property(needed, doc="Whether any part needs it.")


def _of_within(need: str) -> property:
    def needed(self: Smoothed) -> bool:
        return bool(getattr(self.objective, need))

    return property(needed, doc="As the objective within.")


for _need in NEEDS:
    setattr(Mixture, f"needs_{_need}", _of_parts(f"needs_{_need}"))
    setattr(Smoothed, f"needs_{_need}", _of_within(f"needs_{_need}"))
