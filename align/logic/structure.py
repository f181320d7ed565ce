"""Preference structures: which rows of a truth table a loss counts for the winner, against it, on both sides, or not.

Richardson, Srikumar, Sabharwal, 2025: a core formula P, a condition P_C (only its rows count) and an additive formula
P_A (its rows count on both sides) give the rows that are counted above and below the line of a loss's log-ratio,

    top = (P | P_A) & P_C        bottom = (~P | P_A) & P_C.

Here a structure is that pair of sets. P is free on rows that are counted on both sides or not at all, so that a loss
has as many cores as those rows have subsets; the weakest is ``bottom -> top``, the strongest ``top & ~bottom``.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from align.logic.formula import FALSE, REF_L, REF_W, TRUE, Atom, Formula, L, W, ordered
from align.logic.minimise import Shortest, shortest
from align.logic.rows import check_size, everything, listed, projected, rows_of, values, where_true, widened

Mark = Literal["win", "lose", "both", "neither"]
SIGNS: Mapping[Mark, str] = {"win": "✓", "lose": "✗", "both": "✓✗", "neither": "·"}
"""How marks are drawn."""

UP: Mapping[Mark, tuple[Mark, ...]] = {"lose": ("neither", "both"), "neither": ("win",), "both": ("win",), "win": ()}
"""The next marks in the order of truth, from which entailment is made."""


@dataclass(frozen=True, slots=True)
class Structure:
    """A preference structure.

    Attributes:
        atoms: in the order of the truth table.
        top: rows that count for the winner, as a set of bits.
        bottom: rows that count against it.
    """

    atoms: tuple[Atom, ...]
    top: int
    bottom: int

    @classmethod
    def of(cls, core: Formula, condition: Formula = TRUE, additive: Formula = FALSE) -> "Structure":
        """Return the structure of a core P, a condition P_C and an additive formula P_A.

        Examples:
            >>> cpo = Structure.of(L >> W, W | L, W & L)
            >>> cpo.marks()
            ('both', 'win', 'lose', 'neither')
        """
        atoms = ordered([*core.atoms(), *condition.atoms(), *additive.atoms()])
        p, c, a = (rows_of(part, atoms) for part in (core, condition, additive))
        return cls(atoms, (p | a) & c, (everything(len(atoms)) & ~p | a) & c)

    @classmethod
    def of_sides(cls, top: Formula, bottom: Formula) -> "Structure":
        """Return the structure that counts the models of ``top`` over those of ``bottom``."""
        atoms = ordered([*top.atoms(), *bottom.atoms()])
        return cls(atoms, rows_of(top, atoms), rows_of(bottom, atoms))

    @classmethod
    def of_marks(cls, atoms: Sequence[Atom], marks: Sequence[Mark]) -> "Structure":
        """Return the structure with these marks, of rows as they are shown: all true first."""
        check_size(atoms)
        rows = [len(marks) - 1 - place for place in range(len(marks))]
        top = sum(1 << row for row, mark in zip(rows, marks, strict=True) if mark in ("win", "both"))
        bottom = sum(1 << row for row, mark in zip(rows, marks, strict=True) if mark in ("lose", "both"))
        return cls(tuple(atoms), top, bottom)

    @property
    def n(self) -> int:
        """Number of atoms."""
        return len(self.atoms)

    @property
    def both(self) -> int:
        """Rows that count on both sides: all that is certain of P_A."""
        return self.top & self.bottom

    @property
    def neither(self) -> int:
        """Rows that do not count: those outside P_C."""
        return everything(self.n) & ~(self.top | self.bottom)

    def mark(self, row: int) -> Mark:
        """Return how a row counts."""
        return _MARKS[bool(self.top >> row & 1), bool(self.bottom >> row & 1)]

    def marks(self) -> tuple[Mark, ...]:
        """Return how each row counts, as rows are shown: all true first."""
        return tuple(self.mark(row) for row in listed(everything(self.n), self.n))

    def rows(self) -> Iterator[tuple[dict[str, bool], Mark]]:
        """Yield each row, by the names of its atoms, with its mark."""
        for row in listed(everything(self.n), self.n):
            yield self.named(row), self.mark(row)

    def named(self, row: int) -> dict[str, bool]:
        """Return a row by the names of its atoms."""
        return dict(zip((atom.name for atom in self.atoms), values(row, self.n), strict=True))

    # ---- its formulas -----------------------------------------------------------------------------------------------

    def weakest_core(self) -> Shortest:
        """Return ``bottom -> top``, the core that the paper states."""
        return shortest(everything(self.n) & ~self.bottom | self.top, self.atoms)

    def strongest_core(self) -> Shortest:
        """Return ``top & ~bottom``."""
        return shortest(self.top & ~self.bottom, self.atoms)

    def simplest_core(self) -> Shortest:
        """Return the shortest of all cores, between the strongest and the weakest."""
        return shortest(self.top & ~self.bottom, self.atoms, self.both | self.neither)

    def condition(self) -> Formula:
        """Return P_C: the rows that count at all."""
        return shortest(self.top | self.bottom, self.atoms).formula

    def additive(self) -> Formula:
        """Return P_A: the rows that count on both sides."""
        return shortest(self.both, self.atoms).formula

    def sides(self) -> tuple[Formula, Formula]:
        """Return what is counted above and below the line."""
        return shortest(self.top, self.atoms).formula, shortest(self.bottom, self.atoms).formula

    def cores(self) -> int:
        """Return how many inequivalent cores give this structure."""
        return 1 << (self.both | self.neither).bit_count()

    # ---- order ------------------------------------------------------------------------------------------------------

    def over(self, atoms: Sequence[Atom]) -> "Structure":
        """Return the same structure over more atoms."""
        check_size(atoms)
        sides = (widened(rows, self.atoms, atoms) for rows in (self.top, self.bottom))
        return Structure(tuple(atoms), *sides)

    def beside(self, other: "Structure") -> tuple["Structure", "Structure"]:
        """Return both structures over the atoms of either."""
        atoms = ordered([*self.atoms, *other.atoms])
        return self.over(atoms), other.over(atoms)

    def entails(self, other: "Structure") -> bool:
        """Whether this one is at least as constrained: counts no more above the line and no less below it."""
        mine, theirs = self.beside(other)
        return not mine.top & ~theirs.top and not theirs.bottom & ~mine.bottom

    def equals(self, other: "Structure") -> bool:
        """Whether both count the same rows."""
        mine, theirs = self.beside(other)
        return mine == theirs

    def breaking_row(self, other: "Structure") -> tuple["Structure", "Structure", int] | None:
        """Return a row that keeps it from entailing the other, with both over the same atoms, or None."""
        mine, theirs = self.beside(other)
        broken = (mine.top & ~theirs.top) | (theirs.bottom & ~mine.bottom)
        return (mine, theirs, broken.bit_length() - 1) if broken else None

    def meet(self, other: "Structure") -> "Structure":
        """Return the least constrained structure that entails both."""
        mine, theirs = self.beside(other)
        return Structure(mine.atoms, mine.top & theirs.top, mine.bottom | theirs.bottom)

    def join(self, other: "Structure") -> "Structure":
        """Return the most constrained structure that both entail."""
        mine, theirs = self.beside(other)
        return Structure(mine.atoms, mine.top | theirs.top, mine.bottom & theirs.bottom)

    def steps(self, *, up: bool) -> Iterator[tuple[int, Mark, "Structure"]]:
        """Yield the structures one mark away, looser (``up``) or tighter: the row, its new mark, the structure."""
        for row in listed(everything(self.n), self.n):
            mark = self.mark(row)
            for new in UP[mark] if up else tuple(m for m in UP if mark in UP[m]):
                yield row, new, self.with_mark(row, new)

    def with_mark(self, row: int, mark: Mark) -> "Structure":
        """Return the structure with one row marked otherwise."""
        bit = 1 << row
        top = self.top | bit if mark in ("win", "both") else self.top & ~bit
        bottom = self.bottom | bit if mark in ("lose", "both") else self.bottom & ~bit
        return Structure(self.atoms, top, bottom)

    # ---- what can be made of it -------------------------------------------------------------------------------------

    def reference_form(self) -> "Structure":
        """Return the structure of the same log-ratio minus the reference's: Ref(l) joins the top, Ref(w) the bottom."""
        wide = self.over(ordered([*self.atoms, REF_W, REF_L]))
        chosen, rejected = (where_true(wide.atoms.index(atom), wide.n) for atom in (REF_W, REF_L))
        return Structure(wide.atoms, wide.top & rejected, wide.bottom & chosen)

    def swapped(self) -> "Structure":
        """Return the structure with winner and loser exchanged, and the sides of the line with them."""
        renamed = {"w": "l", "l": "w"}
        atoms = tuple(Atom(a.model, renamed.get(a.response or "", a.response)) for a in self.atoms)
        kept = ordered([*self.atoms, *atoms])
        mirror = Structure(atoms, self.bottom, self.top)
        places = [atoms.index(atom) for atom in ordered(atoms)]
        sides = (_permuted(rows, places, mirror.n) for rows in (mirror.top, mirror.bottom))
        return Structure(ordered(atoms), *sides).over(kept)

    def is_skew(self) -> bool:
        """Whether exchanging winner and loser turns the log-ratio's sign: Pr(w over l) + Pr(l over w) = 1."""
        return self.equals(self.swapped())

    def without_idle_atoms(self) -> "Structure":
        """Return the structure over the atoms that matter to it."""
        kept = [
            a for k, a in enumerate(self.atoms) if any(_depends(side, k, self.n) for side in (self.top, self.bottom))
        ]
        sides = (projected(rows, self.atoms, kept) for rows in (self.top, self.bottom))
        return Structure(tuple(kept), *sides)

    def policy_marks(self) -> "Structure":
        """Return the structure over the policy's atoms alone: what counts for some values of the others."""
        kept = [atom for atom in self.atoms if atom.model == "M"]
        return Structure(tuple(kept), *(projected(rows, self.atoms, kept) for rows in (self.top, self.bottom)))


_MARKS: Mapping[tuple[bool, bool], Mark] = {
    (True, False): "win",
    (False, True): "lose",
    (True, True): "both",
    (False, False): "neither",
}

PAIR = (W, L)
"""The atoms of a loss without a reference."""


def _depends(rows: int, k: int, n: int) -> bool:
    mask, block = where_true(k, n), 1 << (n - 1 - k)
    return (rows & mask) >> block != rows & ~mask


def _permuted(rows: int, places: Sequence[int], n: int) -> int:
    """Return a set over atoms whose j-th is the ``places[j]``-th of before."""
    found = 0
    for row in range(1 << n):
        old = sum((row >> (n - 1 - j) & 1) << (n - 1 - place) for j, place in enumerate(places))
        found |= (rows >> old & 1) << row
    return found
