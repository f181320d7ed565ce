"""How many structures and losses there are; nothing is enumerated above three atoms."""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from itertools import product

from align.logic.circuit import circuit, count
from align.logic.formula import Atom, L, W
from align.logic.landscape import is_usual
from align.logic.rows import cofactors, everything
from align.logic.structure import Structure

ENUMERATED_UP_TO = 3
"""Atoms up to which functions are told apart one by one."""

_POINTS = ((Fraction(2, 7), Fraction(3, 11), Fraction(5, 13)), (Fraction(17, 31), Fraction(19, 37), Fraction(23, 41)))


@dataclass(frozen=True, slots=True)
class Monotone:
    """Structures over M(w) and M(l) whose log-ratio rises with w and falls with l.

    Attributes:
        pairs: structures where it never does the opposite, and is not constant.
        functions: different log-ratios among them.
        strict: structures where it does so strictly.
    """

    pairs: int
    functions: int
    strict: int


def counts(n: int) -> dict[str, int | None]:
    """Return the numbers for n atoms; None where they are not known without enumerating too much.

    Raises:
        ValueError: for fewer than 1 or more than 16 atoms.

    Examples:
        >>> counts(2)["distinct_functions"], counts(4)["structures"]
        (187, 4294967296)
    """
    if not 1 <= n <= 16:
        raise ValueError(f"from 1 to 16 atoms, got {n}")
    rows = 1 << n
    sides = (1 << rows) - 1
    monotone = _monotone() if n == 2 else None
    return {
        "atoms": n,
        "rows": rows,
        "structures": 4**rows,
        "satisfiable": sides * sides,
        "distinct_sides": sides * sides - sides,
        "distinct_functions": _distinct_functions(n) if n <= ENUMERATED_UP_TO else None,
        "monotone_pairs": monotone and monotone.pairs,
        "monotone_functions": monotone and monotone.functions,
        "strictly_monotone": monotone and monotone.strict,
        "with_decisive_rows": 4 ** (rows - 2) if n >= 2 else None,
        "of_one_core": 3**rows,
    }


MEANINGS = {
    "atoms": "atoms",
    "rows": "rows of the truth table",
    "structures": "structures: each row has one of four marks",
    "satisfiable": "of them with something on both sides of the line",
    "distinct_sides": "of those with different sides",
    "distinct_functions": "different log-ratios as functions, the constant 0 among them",
    "monotone_pairs": "structures whose log-ratio never falls with w, never rises with l, and is not constant",
    "monotone_functions": "different log-ratios among those",
    "strictly_monotone": "structures whose log-ratio rises with w and falls with l everywhere",
    "with_decisive_rows": "structures in which a pair in right order only wins and one in wrong order only loses",
    "of_one_core": "structures of one core",
}
"""What the numbers count."""


@cache
def _atoms(n: int) -> tuple[Atom, ...]:
    return (W, L, Atom("Ref", "w"))[:n]


def _pairs(n: int) -> Iterator[Structure]:
    """Yield all structures with something on both sides."""
    sides = range(1, everything(n) + 1)
    for top, bottom in product(sides, sides):
        yield Structure(_atoms(n), top, bottom)


@cache
def _values(rows: int, n: int) -> tuple[Fraction, ...]:
    """Return the weighted count of a set of rows at two fixed points."""
    atoms = _atoms(n)
    points = (dict(zip(atoms, point, strict=False)) for point in _POINTS)
    return tuple(Fraction(count(circuit(rows, atoms), point)) for point in points)


def signature(structure: Structure) -> tuple[Fraction, ...]:
    """Return the ratio at two fixed points: structures with one signature have one log-ratio, for two or three atoms.

    Two ratios of polynomials of so low a degree that agree at both points and differ elsewhere were not found; tests
    compare with the published number.
    """
    over, under = (_values(rows, structure.n) for rows in (structure.top, structure.bottom))
    return tuple(a / b for a, b in zip(over, under, strict=True))


@cache
def _distinct_functions(n: int) -> int:
    return len({signature(structure) for structure in _pairs(n)})


def same_function(structure: Structure) -> list[Structure]:
    """Return the other structures of at most two atoms whose log-ratio is the same function, unless it is 0."""
    over = structure.over((W, L)) if set(structure.atoms) <= {W, L} else structure
    if over.n != 2 or over.top == over.bottom or not over.top or not over.bottom:
        return []
    atoms, mine = over.atoms, _values_over(over)
    others = (Structure(atoms, s.top, s.bottom) for s in _pairs(2) if (s.top, s.bottom) != (over.top, over.bottom))
    return [other for other in others if _values_over(other) == mine]


def _values_over(structure: Structure) -> tuple[Fraction, ...]:
    return signature(Structure((W, L), structure.top, structure.bottom))


@cache
def _monotone() -> Monotone:
    weak = []
    strict = 0
    for structure in _pairs(2):
        by_w, by_l = _slope(structure, 0), [-value for value in _slope(structure, 1)]
        if _never_negative(by_w) and _never_negative(by_l) and (any(by_w) or any(by_l)):
            weak.append(structure)
            strict += _positive_inside(by_w) and _positive_inside(by_l)
    return Monotone(len(weak), len({signature(structure) for structure in weak}), strict)


def _slope(structure: Structure, k: int) -> list[int]:
    """Return what has the sign of the log-ratio's slope by one probability, at 0, 1/2 (4 times) and 1 of the other.

    With T1 the top where the atom is true and T0 where it is false, and B likewise, that is T1 B0 - T0 B1: of degree 2
    in the other probability.
    """
    (t1, t0), (b1, b0) = (_lines(rows, k) for rows in (structure.top, structure.bottom))
    ends = [t1[i] * b0[i] - t0[i] * b1[i] for i in (0, 1)]
    middle = sum(t1) * sum(b0) - sum(t0) * sum(b1)
    return [ends[0], middle, ends[1]]


def _lines(rows: int, k: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """Return a set's count with one atom true and with it false, each at 0 and at 1 of the other probability."""
    true, false = cofactors(rows, k, 2)
    other = (0b0010, 0b1000) if k == 1 else (0b0001, 0b0010)  # where the other is false, true
    held = [tuple(int(bool(side & row)) for row in other) for side in (true, false)]
    return held[0], held[1]  # type: ignore[return-value]


def _never_negative(at: list[int]) -> bool:
    """Whether a polynomial of degree 2, by its values at 0, 1/2 (4 times) and 1, is at least 0 between."""
    low, middle, high = at
    if low < 0 or high < 0 or middle < 0:
        return False
    bent, slope = 2 * (low + high) - middle, middle - 3 * low - high  # bent x^2 + slope x + low
    at_bottom = bent > 0 and 0 < -slope < 2 * bent
    return not at_bottom or slope * slope <= 4 * bent * low


def _positive_inside(at: list[int]) -> bool:
    """Whether it is above 0 everywhere between 0 and 1, the ends left out."""
    low, middle, high = at
    if not _never_negative(at) or middle <= 0:
        return False
    bent, slope = 2 * (low + high) - middle, middle - 3 * low - high
    return not (bent > 0 and 0 < -slope < 2 * bent) or slope * slope < 4 * bent * low


def usual() -> int:
    """Return how many structures over M(w) and M(l) have TF only for the winner and FT only against it."""
    return sum(is_usual(structure) for structure in _pairs(2))
