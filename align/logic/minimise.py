"""The shortest formula for a set of rows, some of which may be left open: Quine-McCluskey, exact up to four atoms.

Above, cubes are widened one by one and superfluous ones dropped: a good formula, not provably the shortest one.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import product

from align.logic.formula import FALSE, TRUE, And, Atom, Formula, Iff, Implies, Not, Xor, conjunction, disjunction
from align.logic.rows import everything, where_true

EXACT_UP_TO = 4
"""Atoms up to which the shortest formula is found for certain."""

Cube = tuple[int, ...]
"""For each atom 1 (true), 0 (false) or -1 (either)."""


@dataclass(frozen=True, slots=True)
class Shortest:
    """A formula for a set of rows.

    Attributes:
        formula: true in all rows it must be true in, false in all it must not.
        exact: whether no sum of products (of the set, or of its complement) has fewer literals.
    """

    formula: Formula
    exact: bool


@lru_cache(maxsize=8192)
def shortest(rows: int, atoms: tuple[Atom, ...], free: int = 0) -> Shortest:
    """Return a short formula that is true in ``rows``, and anything in the rows that are ``free``.

    Sums of products of the set and of its complement are compared, and the shorter is taken; one that can be read as an
    implication, an exclusive or, or an equivalence is written so.

    Examples:
        >>> from align.logic.formula import L, W
        >>> str(shortest(0b1101, (W, L)).formula), str(shortest(0b0100, (W, L), free=0b1001).formula)
        ('M(l) -> M(w)', 'M(w)')
    """
    n = len(atoms)
    whole, must = everything(n), rows & ~free
    if must == 0:
        return Shortest(FALSE, True)
    if must | free == whole:
        return Shortest(TRUE, True)
    found = cover(must, free, n)
    others = cover(whole & ~(must | free), free, n)
    if not free and (special := _two_sided(rows, atoms)) is not None:
        return Shortest(special, n <= EXACT_UP_TO)
    formula = _sum(found, atoms) if _price(found) <= _price(others) else _product(others, atoms)
    return Shortest(formula, n <= EXACT_UP_TO)


def cover(must: int, free: int, n: int) -> tuple[Cube, ...]:
    """Return cubes, few and short, that hold all rows of ``must`` and beside them only ``free`` ones."""
    return _exact(must, free, n) if n <= EXACT_UP_TO else _greedy(must, free, n)


def rows_of_cube(cube: Cube) -> int:
    """Return the rows of a cube."""
    n = len(cube)
    rows = everything(n)
    for k, value in enumerate(cube):
        if value >= 0:
            rows &= where_true(k, n) if value else ~where_true(k, n)
    return rows


def _price(cubes: Iterable[Cube]) -> tuple[int, int, int]:
    """Return literals, cubes and negations, of which fewer are better, in this order."""
    chosen = list(cubes)
    values = [value for cube in chosen for value in cube]
    return sum(value >= 0 for value in values), len(chosen), values.count(0)


def _exact(must: int, free: int, n: int) -> tuple[Cube, ...]:
    """Return the cheapest set of prime cubes, by branch and bound."""
    implicants = [cube for cube in _cubes(n) if not rows_of_cube(cube) & ~(must | free)]
    sets = {cube: rows_of_cube(cube) for cube in implicants}
    primes = [c for c in implicants if not any(sets[c] != sets[d] and sets[c] & ~sets[d] == 0 for d in implicants)]
    primes.sort(key=lambda cube: (_price([cube]), [-value for value in cube]))
    best: list[tuple[Cube, ...]] = [_greedy(must, free, n)]

    def search(left: int, chosen: tuple[Cube, ...]) -> None:
        if not left:
            if _price(chosen) < _price(best[0]):
                best[0] = chosen
            return
        if _price(chosen) >= _price(best[0]):
            return
        row = left & -left
        for cube in primes:
            if sets[cube] & row:
                search(left & ~sets[cube], (*chosen, cube))

    search(must, ())
    return _sorted(best[0])


@lru_cache(maxsize=8)
def _cubes(n: int) -> list[Cube]:
    return list(product((-1, 1, 0), repeat=n))


def _greedy(must: int, free: int, n: int) -> tuple[Cube, ...]:
    """Return cubes that are widened while they hold nothing they must not, none of them superfluous."""
    off, left, chosen = everything(n) & ~(must | free), must, []
    while left:
        row = left.bit_length() - 1
        cube = _widened([row >> (n - 1 - k) & 1 for k in range(n)], off)
        chosen.append(cube)
        left &= ~rows_of_cube(cube)
    for cube in sorted(chosen, key=lambda c: -_price([c])[0]):
        rest = [other for other in chosen if other is not cube]
        held = 0
        for other in rest:
            held |= rows_of_cube(other)
        if not must & ~held:
            chosen = rest
    return _sorted(chosen)


def _widened(cube: list[int], off: int) -> Cube:
    for k in range(len(cube)):
        kept, cube[k] = cube[k], -1
        if rows_of_cube(tuple(cube)) & off:
            cube[k] = kept
    return tuple(cube)


def _sorted(cubes: Iterable[Cube]) -> tuple[Cube, ...]:
    return tuple(sorted(cubes, key=lambda cube: (sum(v >= 0 for v in cube), [(-v) % 3 for v in cube])))


def _literals(cube: Cube, atoms: Sequence[Atom]) -> list[Formula]:
    return [atom if value else Not(atom) for atom, value in zip(atoms, cube, strict=True) if value >= 0]


def _sum(cubes: Sequence[Cube], atoms: Sequence[Atom]) -> Formula:
    """Return one of the cubes holds, with single negations moved before an arrow."""
    parts = [conjunction(_literals(cube, atoms)) for cube in cubes]
    return _as_implication(parts)


def _product(cubes: Sequence[Cube], atoms: Sequence[Atom]) -> Formula:
    """Return that none of the cubes holds: a clause for each."""
    clauses = []
    for cube in cubes:
        clauses.append(_as_implication([_negated(literal) for literal in _literals(cube, atoms)]))
    return conjunction(clauses)


def _as_implication(parts: Sequence[Formula]) -> Formula:
    """Return a disjunction as an implication where it has negated atoms and something else."""
    before = [part.of for part in parts if isinstance(part, Not)]
    after = [part for part in parts if not isinstance(part, Not)]
    if before and after:
        return Implies(conjunction(before), disjunction(after))
    if len(before) > 1:
        return _not_all(before)
    return disjunction(parts)


def _not_all(atoms: Sequence[Formula]) -> Formula:
    """Return that not all of some atoms hold; of the policy's where the others', if both kinds are there."""
    given = [atom for atom in atoms if isinstance(atom, Atom) and atom.model != "M"]
    asked = [Not(atom) for atom in atoms if atom not in given]
    return Implies(conjunction(given), disjunction(asked)) if given and len(asked) == 1 else Not(And(tuple(atoms)))


def _negated(literal: Formula) -> Formula:
    return literal.of if isinstance(literal, Not) else Not(literal)


def _two_sided(rows: int, atoms: tuple[Atom, ...]) -> Formula | None:
    """Return an exclusive or, or an equivalence, of two atoms if the rows are one."""
    n = len(atoms)
    whole = everything(n)
    for i in range(n):
        for j in range(i + 1, n):
            different = where_true(i, n) ^ where_true(j, n)
            if rows in (different, whole & ~different):
                kind = Xor if rows == different else Iff
                return kind(atoms[i], atoms[j])
    return None


def literals(formula: Formula) -> int:
    """Return how many times atoms stand in a formula.

    Examples:
        >>> from align.logic.formula import L, W
        >>> literals(L >> W | ~L)
        3
    """
    return 1 if isinstance(formula, Atom) else sum(literals(part) for part in formula.children())
