"""The weighted count of a set of rows as a small circuit of probabilities: what a compiled loss computes.

A set is split at one atom after the other (Shannon), atoms that do not matter are skipped since p + (1 - p) = 1, and an
atom without which nothing is left becomes a factor. All terms are positive, so that nothing cancels, and in log space
products are sums and sums of disjoint branches are ``logsumexp``.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise
from operator import add, mul
from typing import Any

from align.logic.formula import Atom, place
from align.logic.rows import cofactors, everything, listed, support, values
from align.logic.structure import Structure


@dataclass(frozen=True, slots=True)
class Circuit:
    """A positive polynomial of probabilities."""


@dataclass(frozen=True, slots=True)
class Number(Circuit):
    """1, or the 0 of an empty set."""

    value: int


@dataclass(frozen=True, slots=True)
class Factor(Circuit):
    """The probability of an atom, or that of its negation."""

    atom: Atom
    holds: bool


@dataclass(frozen=True, slots=True)
class Product(Circuit):
    """Of independent circuits."""

    parts: tuple[Circuit, ...]


@dataclass(frozen=True, slots=True)
class Sum(Circuit):
    """Of circuits that exclude each other."""

    parts: tuple[Circuit, ...]


ONE, ZERO = Number(1), Number(0)


@lru_cache(maxsize=4096)
def circuit(rows: int, atoms: tuple[Atom, ...]) -> Circuit:
    """Return the weighted count of a set of rows.

    Examples:
        >>> from align.logic.formula import L, W
        >>> text(circuit(0b1101, (W, L)))
        'wl + 1−l'
    """
    if rows == 0:
        return ZERO
    n = len(atoms)
    if rows == everything(n):
        return ONE
    split = {k: cofactors(rows, k, n) for k in support(rows, n)}
    for k, (true, false) in split.items():
        if not true or not false:
            return _times(Factor(atoms[k], bool(true)), circuit(true or false, atoms))
    at = min(split, key=lambda k: (_size(split[k], atoms), split[k][1] != everything(n), k))
    true, false = split[at]
    branches = (
        _times(Factor(atoms[at], True), circuit(true, atoms)),
        _times(Factor(atoms[at], False), circuit(false, atoms)),
    )
    return Sum(branches)


def _size(sides: tuple[int, int], atoms: tuple[Atom, ...]) -> int:
    """Return a guess of how much two cofactors still hold: the atoms they depend on."""
    return sum(len(list(support(side, len(atoms)))) for side in sides)


def _times(factor: Factor, rest: Circuit) -> Circuit:
    if rest == ONE:
        return factor
    return Product(tuple(sorted((factor, *_factors(rest)), key=_rank)))


def _rank(part: Circuit) -> tuple[object, ...]:
    """Return where a factor stands: probabilities, then those of negations, each in the order of atoms; then sums."""
    return (not part.holds, *place(part.atom)) if isinstance(part, Factor) else (2,)


def ratio(structure: Structure) -> tuple[Circuit, Circuit]:
    """Return what is counted above and below the line, without factors that both share.

    Examples:
        >>> from align.logic.formula import L, W
        >>> " over ".join(map(text, ratio(Structure.of_sides(W & ~L, L & ~W))))
        'w(1−l) over l(1−w)'
    """
    top, bottom = (circuit(rows, structure.atoms) for rows in (structure.top, structure.bottom))
    shared = [part for part in _factors(top) if part in _factors(bottom)]
    return _without(top, shared), _without(bottom, shared)


def _factors(node: Circuit) -> tuple[Circuit, ...]:
    return node.parts if isinstance(node, Product) else (node,)


def _without(node: Circuit, dropped: list[Circuit]) -> Circuit:
    kept = tuple(part for part in _factors(node) if part not in dropped)
    return Product(kept) if len(kept) > 1 else kept[0] if kept else ONE


# ---- as numbers and as text -----------------------------------------------------------------------------------------


def count(node: Circuit, probabilities: Mapping[Atom, Any]) -> Any:
    """Return the value of a circuit, for probabilities of any kind of number: floats, fractions, polynomials."""
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Factor):
        return probabilities[node.atom] if node.holds else 1 - probabilities[node.atom]
    assert isinstance(node, Product | Sum)
    parts = [count(part, probabilities) for part in node.parts]
    return reduce(mul if isinstance(node, Product) else add, parts)


def atoms_of(node: Circuit) -> Iterator[Atom]:
    """Yield the atoms of a circuit's factors, as often as they stand in it."""
    if isinstance(node, Factor):
        yield node.atom
    for part in getattr(node, "parts", ()):
        yield from atoms_of(part)


def row_weights(structure: Structure) -> Iterator[tuple[int, Circuit]]:
    """Yield each row as it is shown, and its weight."""
    n = structure.n
    for row in listed(everything(n), n):
        factors = tuple(Factor(a, v) for a, v in zip(structure.atoms, values(row, n), strict=True))
        yield row, Product(factors) if len(factors) > 1 else factors[0] if factors else ONE


SYMBOLS = {"M": "", "Ref": "r"}
"""How probabilities are written: ``w`` for the policy's of the winner, ``rw`` for the reference's."""


def symbol(atom: Atom) -> str:
    """Return the letter of an atom's probability.

    Examples:
        >>> from align.logic.formula import REF_W, W
        >>> symbol(W), symbol(REF_W), symbol(Atom("Judge", "w")), symbol(Atom("Const", "0.3"))
        ('w', 'rw', 'Judge(w)', '0.3')
    """
    if atom.model == "Const" and atom.response is not None:
        return atom.response
    if atom.model in SYMBOLS and atom.response is not None:
        return SYMBOLS[atom.model] + atom.response
    return atom.name


def text(node: Circuit) -> str:
    """Return a circuit as a polynomial: ``w(1−l)``, ``wl + 1−w``."""
    if isinstance(node, Number):
        return str(node.value)
    if isinstance(node, Factor):
        return symbol(node.atom) if node.holds else f"1−{symbol(node.atom)}"
    if isinstance(node, Sum):
        return " + ".join(text(part) for part in node.parts)
    assert isinstance(node, Product)
    return _juxtaposed([text(part) if _is_plain(part) else f"({text(part)})" for part in node.parts])


def _is_plain(part: Circuit) -> bool:
    return isinstance(part, Factor) and part.holds


def _juxtaposed(factors: list[str]) -> str:
    """Return factors beside each other; a dot between those that would run together."""
    joined = factors[0]
    for before, factor in pairwise(factors):
        clear = "(" in (before[0], factor[0]) or (len(before) == 1 == len(factor))
        joined += factor if clear else f"·{factor}"
    return joined


def log_ratio(structure: Structure) -> str:
    """Return the log-ratio as text.

    Examples:
        >>> from align.logic.formula import L, W
        >>> log_ratio(Structure.of(L >> W, W | L, W & L))
        'log [ w / l ]'
    """
    top, bottom = ratio(structure)
    if ZERO in (top, bottom):
        return f"undefined: nothing counts {'against' if top != ZERO else 'for'} the winner"
    over, under = (f"({text(side)})" if _needs_brackets(side) else text(side) for side in (top, bottom))
    return f"log [ {over} / {under} ]" if bottom != ONE else f"log [ {text(top)} ]"


def _needs_brackets(node: Circuit) -> bool:
    several = isinstance(node, Product) or (isinstance(node, Factor) and len(symbol(node.atom)) > 2)
    return isinstance(node, Sum) or several or (isinstance(node, Factor) and not node.holds)
