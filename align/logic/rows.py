"""Truth tables as whole numbers: bit r of a set of rows is 1 where row r is in it.

Row r makes atom k (of n, in their order) true where bit n - 1 - k of r is 1, so that the first atom is the first column
and rows are shown from the highest, where all atoms are true, to 0, where none is.
"""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache, reduce
from operator import and_, or_

from align.logic.formula import And, Atom, Constant, Formula, Iff, Implies, Not, Or, Xor

MOST_ATOMS = 16
"""Atoms whose truth table, of 65,536 rows, is kept whole."""


def everything(n: int) -> int:
    """Return the set of all rows of n atoms."""
    return (1 << (1 << n)) - 1


@lru_cache(maxsize=1024)
def where_true(k: int, n: int) -> int:
    """Return the rows where atom k of n is true.

    Examples:
        >>> bin(where_true(0, 2)), bin(where_true(1, 2))
        ('0b1100', '0b1010')
    """
    block = 1 << (n - 1 - k)
    pattern, width = ((1 << block) - 1) << block, 2 * block
    while width < 1 << n:
        pattern |= pattern << width
        width *= 2
    return pattern


def rows_of(formula: Formula, atoms: Sequence[Atom]) -> int:
    """Return the rows that a formula is true in.

    Raises:
        ValueError: for more atoms than :data:`MOST_ATOMS`.

    Examples:
        >>> from align.logic.formula import L, W
        >>> bin(rows_of(L >> W, (W, L)))
        '0b1101'
    """
    check_size(atoms)
    places = {atom: place for place, atom in enumerate(atoms)}
    return _rows(formula, places, len(atoms))


def check_size(atoms: Sequence[Atom]) -> None:
    """Refuse more atoms than a truth table is kept of.

    Raises:
        ValueError: naming how many there are.
    """
    if len(atoms) > MOST_ATOMS:
        raise ValueError(f"{len(atoms)} atoms; truth tables are kept whole for up to {MOST_ATOMS}")


def _rows(formula: Formula, places: Mapping[Atom, int], n: int) -> int:
    if isinstance(formula, Atom):
        return where_true(places[formula], n)
    if isinstance(formula, Constant):
        return everything(n) if formula.value else 0
    parts = [_rows(part, places, n) for part in formula.children()]
    if isinstance(formula, Not):
        return everything(n) & ~parts[0]
    if isinstance(formula, And | Or):
        return reduce(and_ if isinstance(formula, And) else or_, parts)
    if isinstance(formula, Implies):
        return everything(n) & ~parts[0] | parts[1]
    different = parts[0] ^ parts[1]
    assert isinstance(formula, Xor | Iff)
    return different if isinstance(formula, Xor) else everything(n) & ~different


def listed(rows: int, n: int) -> list[int]:
    """Return the numbers of the rows of a set as they are shown, the highest first."""
    return [row for row in range((1 << n) - 1, -1, -1) if rows >> row & 1]


def values(row: int, n: int) -> tuple[bool, ...]:
    """Return which of n atoms a row makes true."""
    return tuple(bool(row >> (n - 1 - k) & 1) for k in range(n))


def row_number(given: Sequence[bool]) -> int:
    """Return the number of the row with these values."""
    return reduce(lambda number, value: 2 * number + value, given, 0)


def letters(row: int, n: int) -> str:
    """Return a row as letters.

    Examples:
        >>> letters(2, 2)
        'TF'
    """
    return "".join("TF"[not value] for value in values(row, n))


def widened(rows: int, atoms: Sequence[Atom], into: Sequence[Atom]) -> int:
    """Return a set of rows as one over more atoms, whose values it does not depend on."""
    if tuple(atoms) == tuple(into):
        return rows
    places, n, found = [into.index(atom) for atom in atoms], len(into), 0
    for row in range(1 << n):
        inner = reduce(lambda number, place: 2 * number + (row >> (n - 1 - place) & 1), places, 0)
        found |= (rows >> inner & 1) << row
    return found


def projected(rows: int, atoms: Sequence[Atom], onto: Sequence[Atom]) -> int:
    """Return the rows over fewer atoms that some row of the set has within it."""
    places, n = [atoms.index(atom) for atom in onto], len(atoms)
    inner = (
        reduce(lambda number, place: 2 * number + (row >> (n - 1 - place) & 1), places, 0) for row in listed(rows, n)
    )
    return reduce(lambda found, row: found | 1 << row, inner, 0)


def cofactors(rows: int, k: int, n: int) -> tuple[int, int]:
    """Return what is left of a set, as rows over n atoms, where atom k is true, and where it is false."""
    block, mask = 1 << (n - 1 - k), where_true(k, n)
    true, false = rows & mask, rows & ~mask
    return true | true >> block, false | false << block


def support(rows: int, n: int) -> Iterator[int]:
    """Yield the atoms that a set of rows depends on."""
    for k in range(n):
        true, false = cofactors(rows, k, n)
        if true != false:
            yield k
