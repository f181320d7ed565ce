"""Whether one loss entails another, logically or as a function, with a witness where it does not."""

import math
import random
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from itertools import product
from typing import Any, Literal

from align.logic.circuit import circuit, count
from align.logic.formula import Atom
from align.logic.rows import values
from align.logic.slopes import link_at, log_ratio_at
from align.logic.structure import Structure

Relation = Literal["entails", "equals"]
DRAWS = 4000
"""Points at random at which an order is tried, after points near the corners."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a comparison.

    Attributes:
        holds: whether the relation does.
        witness: a row that breaks it with the mark of each side, and probabilities at which the losses are in the
            other order, where there are any; None where the relation holds.
        why: in words.
    """

    holds: bool
    witness: dict[str, Any] | None
    why: str


def entails(one: Structure, other: Structure) -> Verdict:
    """Return whether the first is at least as constrained as the second: counts no row more for it, none less against.

    Then its log-ratio is nowhere the larger one, and its loss nowhere the smaller, if the link is decreasing.
    """
    broken = one.breaking_row(other)
    if broken is None:
        return Verdict(True, None, "all that counts for the first counts for the second, and the reverse against it")
    mine, theirs, row = broken
    witness = _row_witness(mine, theirs, row)
    point = point_above(mine, theirs, near=row)
    witness["probabilities"] = None if point is None else _named(point)
    witness["losses"] = None if point is None else _losses(mine, theirs, point)
    flips = (
        "there the first costs less"
        if point is not None
        else "yet no probabilities were found at which the first costs less"
    )
    return Verdict(False, witness, f"row {_said(witness['row'])} breaks it; {flips}")


def equals(one: Structure, other: Structure) -> Verdict:
    """Return whether both count the same rows."""
    for first, second in ((one, other), (other, one)):
        verdict = entails(first, second)
        if not verdict.holds:
            return verdict if first is one else Verdict(False, _turned(verdict.witness or {}), verdict.why)
    return Verdict(True, None, "both count the same rows")


def functional(one: Structure, other: Structure, relation: Relation) -> Verdict:
    """Return whether the first log-ratio is nowhere above the second, or equal to it, as a function of probabilities.

    Raises:
        ValueError: if no proof and no counter-example was found.
    """
    mine, theirs = one.beside(other)
    for first, second in ((mine, theirs), (theirs, mine))[: 1 if relation == "entails" else 2]:
        point = None if first.entails(second) else point_above(first, second)
        if point is not None:
            witness = {
                "row": None,
                "marks": None,
                "probabilities": _named(point),
                "losses": _losses(mine, theirs, point),
            }
            return Verdict(False, witness, f"at {_said(_named(point))} the log-ratios are in the other order")
        if not first.entails(second) and not _never_above(first, second):
            raise ValueError("undecided: no counter-example was found, and no proof either")
    return Verdict(True, None, "the log-ratios are so at all probabilities")


def point_above(one: Structure, other: Structure, near: int | None = None) -> dict[Atom, float] | None:
    """Return probabilities at which the first log-ratio is above the second, or None where none was found.

    Both structures are over the same atoms, and count something on each side.
    """
    best: tuple[float, dict[Atom, float]] | None = None
    for point in _points(one, near):
        gap = _log_ratio(one, point) - _log_ratio(other, point)
        if gap > 1e-9 and (best is None or gap > best[0]):
            best = gap, point
            if gap > 0.05:
                break
    return best[1] if best else None


def _points(structure: Structure, near: int | None) -> Iterator[dict[Atom, float]]:
    """Yield probabilities: near the row that is given, near all corners, then at random from a fixed seed."""
    n = structure.n
    if near is not None:
        for sure in (0.8, 0.95, 0.99, 0.999):
            yield _near(structure, values(near, n), sure)
    if n <= 6:
        for corner in product((True, False), repeat=n):
            for sure in (0.7, 0.95, 0.999):
                yield _near(structure, corner, sure)
    draw = random.Random(0)
    for _ in range(DRAWS):
        yield {atom: min(max(draw.betavariate(0.5, 0.5), 1e-6), 1 - 1e-6) for atom in structure.atoms}


def _near(structure: Structure, corner: tuple[bool, ...], sure: float) -> dict[Atom, float]:
    return {a: round(sure if value else 1 - sure, 6) for a, value in zip(structure.atoms, corner, strict=True)}


def _log_ratio(structure: Structure, point: Mapping[Atom, float]) -> float:
    return log_ratio_at(structure, {atom: math.log(p) for atom, p in point.items()}).value


def _losses(one: Structure, other: Structure, point: Mapping[Atom, float]) -> list[float]:
    return [link_at("logistic", _log_ratio(structure, point), 1.0)[0] for structure in (one, other)]


def _row_witness(mine: Structure, theirs: Structure, row: int) -> dict[str, Any]:
    return {"row": mine.named(row), "marks": [mine.mark(row), theirs.mark(row)]}


def _turned(witness: dict[str, Any]) -> dict[str, Any]:
    return {key: value[::-1] if isinstance(value, list) else value for key, value in witness.items()}


def _named(point: Mapping[Atom, float]) -> dict[str, float]:
    return {atom.name: p for atom, p in point.items()}


def _said(facts: Mapping[str, Any]) -> str:
    shown = {True: "T", False: "F"}
    return ", ".join(f"{name} = {shown.get(v, v) if isinstance(v, bool) else f'{v:.4g}'}" for name, v in facts.items())


# ---- a proof ---------------------------------------------------------------------------------------------------------


def _never_above(one: Structure, other: Structure) -> bool:
    """Whether the first log-ratio is proved to be nowhere above the second.

    That is ``top_2 bottom_1 - top_1 bottom_2 >= 0`` on the whole cube: a polynomial of degree 2 at most in each
    probability, which no Bernstein coefficient of which is negative.
    """
    n = one.n
    grid = list(product((Fraction(0), Fraction(1, 2), Fraction(1)), repeat=n))
    sides = [circuit(rows, one.atoms) for rows in (other.top, one.bottom, one.top, other.bottom)]
    found: dict[tuple[Fraction, ...], Fraction] = {}
    for point in grid:
        a, b, c, d = (Fraction(count(side, dict(zip(one.atoms, point, strict=True)))) for side in sides)
        found[point] = a * b - c * d
    for k in range(n):  # values at 0, 1/2, 1 to Bernstein coefficients, one probability after the other
        for point in grid:
            if point[k] == Fraction(1, 2):
                low, high = (found[(*point[:k], end, *point[k + 1 :])] for end in (Fraction(0), Fraction(1)))
                found[point] = 2 * found[point] - (low + high) / 2
    return all(value >= 0 for value in found.values())
