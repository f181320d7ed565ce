"""A preference structure as an objective that trains: ``objective: {formula: "M(l) -> M(w)", ...}`` of a recipe.

Probabilities stay logarithms throughout: a product of a circuit is a sum, a sum of branches that exclude each other is
``logaddexp``, and the logarithm of 1 - p is :func:`~align.objectives.numerics.log1mexp`, whose bound at p = 1 is the
one that docs/objectives.md names. Source: Richardson, Srikumar, Sabharwal, 2025 (ICML). The factored form is ours.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property, reduce
from operator import add
from typing import Literal, get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.logic.circuit import Circuit, Factor, Number, Product, atoms_of, ratio
from align.logic.formula import Atom, Formula, untrainable_atoms
from align.logic.parsing import FormulaError, parse
from align.logic.structure import Structure
from align.objectives.base import SIDES, Objective, Side
from align.objectives.links import logistic, squared
from align.objectives.logps import PairLogps
from align.objectives.numerics import log1mexp
from align.objectives.settings import check_choice, check_finite, check_not_negative, check_positive

Link = Literal["logistic", "squared", "hinge"]
RESPONSES: Mapping[str, Side] = {"w": "chosen", "l": "rejected"}
FORMULAS = ("formula", "condition", "additive")


@dataclass(frozen=True, kw_only=True)
class FormulaObjective(Objective):
    """The loss of a formula: a link of the log-ratio of what it counts for the winner over what it counts against it.

    Attributes:
        formula: the core P: "M(l) -> M(w)" for "where the loser is valid, the winner is".
        condition: P_C; only its rows count.
        additive: P_A; its rows count on both sides.
        link: logistic, -log sigmoid(beta (rho - margin)); squared, (rho - margin - 1/(2 beta))^2; or hinge,
            max(0, beta - (rho - margin)).
        beta: of the link, > 0; for hinge at least 0.
        margin: nats that the log-ratio rho must have before it counts.
        length_normalised: whether probabilities are geometric means over tokens.
    """

    formula: str
    condition: str = "true"
    additive: str = "false"
    link: Link = "logistic"
    beta: float = 1.0
    margin: float = 0.0
    length_normalised: bool = False

    def __post_init__(self) -> None:
        check_choice("link", self.link, get_args(Link))
        check_finite(margin=self.margin)
        (check_not_negative if self.link == "hinge" else check_positive)(beta=self.beta)
        if not self.structure.top or not self.structure.bottom:
            side = "against" if self.structure.top else "for"
            raise ValueError(f"formula counts nothing {side} the winner: its condition leaves no row for that side")
        if self.structure.top == self.structure.bottom:
            raise ValueError("formula counts the same rows for and against the winner: its loss is a constant")
        self._check_atoms()

    def _check_atoms(self) -> None:
        for name in untrainable_atoms(self.structure.atoms):
            known = "it knows M, Ref and Score of w and l, and Const(p)"
            where = next(setting for setting in FORMULAS if name in map(str, self._read(setting).atoms()))
            raise ValueError(f"{where} has the atom {name}, whose probability training does not know; {known}")
        if not any(atom.model == "M" for atom in self._atoms):
            raise ValueError("formula depends on no probability of the policy, M(w) or M(l): nothing would be trained")

    @cached_property
    def structure(self) -> Structure:
        """What is counted, as rows of a truth table.

        Raises:
            ValueError: if one of the formulas is none, naming the setting.
        """
        return Structure.of(*map(self._read, FORMULAS)).without_idle_atoms()

    def _read(self, setting: str) -> Formula:
        try:
            return parse(getattr(self, setting))
        except FormulaError as error:
            raise ValueError(f"{setting}: {error}") from error

    @cached_property
    def _sides(self) -> tuple[Circuit, Circuit]:
        return ratio(self.structure)

    @cached_property
    def _atoms(self) -> frozenset[Atom]:
        """Atoms that the log-ratio depends on: those of factors that both sides share drop out."""
        return frozenset(atom for side in self._sides for atom in atoms_of(side))

    @property
    def own_name(self) -> str:
        """What reports call it: its formula."""
        return self.formula

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """Whether it depends on the reference."""
        return any(atom.model == "Ref" for atom in self._atoms)

    @property
    def needs_scores(self) -> bool:  # type: ignore[override]
        """Whether it depends on a judge."""
        return any(atom.model == "Score" for atom in self._atoms)

    @property
    def needs_lengths(self) -> bool:  # type: ignore[override]
        """Whether probabilities are of tokens."""
        return self.length_normalised

    @property
    def reads(self) -> tuple[Side, ...]:  # type: ignore[override]
        """Sides that it depends on."""
        read = {RESPONSES.get(atom.response or "") for atom in self._atoms}
        return tuple(side for side in SIDES if side in read)

    @property
    def reward_scale(self) -> float:
        """Implicit rewards are beta times the log-ratios, where the link has beta as a factor."""
        return self.beta if self.link == "logistic" else 1.0

    @property
    def mean_rewards(self) -> bool:
        """Rewards are a token where probabilities are."""
        return self.length_normalised

    def score_faults(
        self, chosen: Float[Tensor, " pairs"], rejected: Float[Tensor, " pairs"]
    ) -> list[tuple[Bool[Tensor, " pairs"], str]]:
        """Return the pairs whose scores are no probabilities."""
        outside = (chosen <= 0) | (chosen > 1) | (rejected <= 0) | (rejected > 1)
        return [(outside, "Score weighs probabilities: chosen_score and rejected_score must be above 0 and at most 1")]

    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return rho: the log of what counts for the winner over what counts against it."""
        logs = {atom: self._logarithm(atom, policy, reference) for atom in self._atoms}
        top, bottom = (_evaluated(side, logs, policy.chosen) for side in self._sides)
        return top - bottom

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the link of the log-ratio beyond its margin."""
        score = self.score(policy, reference) - self.margin
        if self.link == "logistic":
            return logistic(self.beta * score)
        return squared(score, 0.5 / self.beta) if self.link == "squared" else torch.relu(self.beta - score)

    def _logarithm(self, atom: Atom, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the log-probability of an atom for each pair."""
        if atom.model == "Const":
            return torch.full_like(policy.chosen.detach(), math.log(float(atom.response or 0)))
        side = RESPONSES[atom.response or ""]
        if atom.model == "Score":
            scores = policy.chosen_scores if side == "chosen" else policy.rejected_scores
            if scores is None:
                raise ValueError(f"{atom} needs scores of the completions: columns chosen_score and rejected_score")
            return scores.to(policy.chosen.dtype).log()
        given = policy if atom.model == "M" else reference
        assert given is not None
        plain: Tensor = getattr(given, side)
        return plain / getattr(policy, f"{side}_lengths") if self.length_normalised else plain


def _evaluated(
    node: Circuit, logs: Mapping[Atom, Float[Tensor, " pairs"]], like: Float[Tensor, " pairs"]
) -> Float[Tensor, " pairs"]:
    """Return the logarithm of a circuit's value."""
    if isinstance(node, Number):
        return torch.zeros_like(like)
    if isinstance(node, Factor):
        return logs[node.atom] if node.holds else log1mexp(logs[node.atom])
    parts = [_evaluated(part, logs, like) for part in node.parts]  # type: ignore[attr-defined]
    joined: Callable[[Tensor, Tensor], Tensor] = add if isinstance(node, Product) else torch.logaddexp
    return reduce(joined, parts)
