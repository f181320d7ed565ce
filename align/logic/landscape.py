"""Losses in the order of entailment: sixteen without a reference, twelve of them in a figure, their reference forms.

The sixteen are all structures over M(w) and M(l) in which a pair in the right order (TF) only counts for the winner and
one in the wrong order (FT) only against it. They form the lattice of four marks squared, from CEUnl to unCPO.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Literal

from align.logic.circuit import log_ratio
from align.logic.formula import REF_L, REF_W, Formula
from align.logic.printing import unicode
from align.logic.rows import row_number
from align.logic.structure import PAIR, Mark, Structure

_CODES: Mapping[str, Mark] = {"+": "win", "-": "lose", "=": "both", ".": "neither"}
_MARKS: Mapping[str, str] = {
    "CEUnl": "-+--",
    "sCE": "=+--",
    "l3": ".+--",
    "cUnl": "-+-.",
    "l20": "-+-=",
    "CE": "++--",
    "CPO": "=+-.",
    "l5": "=+-=",
    "ORPO": ".+-.",
    "qfUnl": ".+-=",
    "fUnl": "-+-+",
    "bCPO": "++-=",
    "cCPO": "++-.",
    "l14": "=+-+",
    "cfUnl": ".+-+",
    "unCPO": "++-+",
}
"""Marks of TT, TF, FT, FF: + for the winner, - against it, = on both sides, . on neither; most constrained first."""

KNOWN: Mapping[str, str] = {
    "CEUnl": "cross-entropy with unlikelihood",
    "CE": "cross-entropy of the winner",
    "CPO": "CPO, SLiC, RRHF, SimPO's margin",
    "ORPO": "the odds ratio of ORPO",
    "fUnl": "unlikelihood of the loser",
}
"""Nodes that were losses before the paper; and unlikelihood, which it counts as new, by itself."""

KNOWN_WITH_REFERENCE: Mapping[str, str] = {"CPO": "DPO, IPO"}
"""The same among the reference forms."""

NOT_IN_TWELVE = ("l3", "l5", "l14", "bCPO")
"""Nodes that the paper's figure without a reference leaves out."""

Which = Literal["sixteen", "twelve", "reference"]


@dataclass(frozen=True, slots=True)
class Node:
    """A loss of a landscape.

    Attributes:
        name: as in the paper's figure; reference forms have the name of what they are made of.
        structure: its marks.
        core: the weakest core, by which regions are told apart.
        known: losses that have this structure; empty for none.
    """

    name: str
    structure: Structure
    core: Formula
    known: str = ""

    @property
    def region(self) -> str:
        """The weakest core as text; all nodes of a region have the same."""
        return unicode(self.core)


@dataclass(frozen=True, slots=True)
class Landscape:
    """Losses, and which of them stand directly above which.

    Attributes:
        nodes: most constrained first.
        edges: pairs of names, each from the more constrained to the less; none follows from others.
    """

    nodes: tuple[Node, ...]
    edges: tuple[tuple[str, str], ...]

    def node(self, name: str) -> Node:
        """Return the node of a name."""
        return next(node for node in self.nodes if node.name == name)

    def regions(self) -> dict[str, list[str]]:
        """Return the names of each region's nodes, by its core."""
        found: dict[str, list[str]] = {}
        for node in self.nodes:
            found.setdefault(node.region, []).append(node.name)
        return found

    def looser(self, name: str) -> list[str]:
        """Return the nodes directly above."""
        return [above for below, above in self.edges if below == name]

    def tighter(self, name: str) -> list[str]:
        """Return the nodes directly below."""
        return [below for below, above in self.edges if above == name]

    def levels(self) -> dict[str, int]:
        """Return how many steps each node is from the most constrained ones, along the longest way."""
        found: dict[str, int] = {}
        for node in self.nodes:  # in an order in which what is below comes first
            found[node.name] = 1 + max((found[below] for below in self.tighter(node.name)), default=-1)
        return found


@cache
def sixteen() -> Mapping[str, Structure]:
    """Return the structures of the landscape without a reference, by name."""
    return {name: Structure.of_marks(PAIR, [_CODES[sign] for sign in signs]) for name, signs in _MARKS.items()}


@cache
def landscape(which: Which = "sixteen") -> Landscape:
    """Return a landscape.

    Examples:
        >>> [(which, len(landscape(which).nodes), len(landscape(which).edges)) for which in ("sixteen", "twelve")]
        [('sixteen', 16, 32), ('twelve', 12, 18)]
    """
    structures = dict(sixteen())
    if which == "twelve":
        structures = {name: found for name, found in structures.items() if name not in NOT_IN_TWELVE}
    known = KNOWN
    if which == "reference":
        structures = {name: found.reference_form() for name, found in structures.items()}
        known = KNOWN_WITH_REFERENCE
    nodes = (Node(name, s, s.weakest_core().formula, known.get(name, "")) for name, s in structures.items())
    return Landscape(tuple(nodes), tuple(_covering(structures)))


def filtered(whole: Landscape, keep: Callable[[Node], bool]) -> Landscape:
    """Return the nodes that are kept, in the order that is left among them."""
    nodes = tuple(node for node in whole.nodes if keep(node))
    return Landscape(nodes, tuple(_covering({node.name: node.structure for node in nodes})))


def _covering(structures: Mapping[str, Structure]) -> Iterator[tuple[str, str]]:
    below = {
        (a, b) for a, s in structures.items() for b, t in structures.items() if a != b and s.entails(t)
    }  # strict: no two have one structure
    for a, b in sorted(below, key=lambda pair: [list(structures).index(name) for name in pair]):
        if not any((a, c) in below and (c, b) in below for c in structures):
            yield a, b


def name_in_landscape(structure: Structure) -> tuple[str, Which] | None:
    """Return the node that a structure is, and whose landscape; None for none of them.

    Examples:
        >>> name_in_landscape(sixteen()["CPO"].reference_form())
        ('CPO', 'reference')
    """
    bare = structure.without_idle_atoms()
    wider = {PAIR: "sixteen", (*PAIR, REF_W, REF_L): "reference"}
    for atoms, which in wider.items():
        if set(bare.atoms) <= set(atoms):
            over = bare.over(atoms)
            for name, plain in sixteen().items():
                if over == (plain if which == "sixteen" else plain.reference_form()):
                    return name, which  # type: ignore[return-value]
    return None


@dataclass(frozen=True, slots=True)
class Neighbour:
    """A structure one step away.

    Attributes:
        name: as in the landscape, else the log-ratio.
        structure: the structure.
        row: the row that is marked otherwise, over the structure's atoms; None among reference forms, where one mark
            of what they are made of is several of theirs.
        mark: its new mark.
    """

    name: str
    structure: Structure
    row: int | None = None
    mark: Mark | None = None


def neighbours(structure: Structure, *, up: bool) -> list[Neighbour]:
    """Return the structures one step looser (``up``) or tighter: in its landscape, else one mark away.

    Of those one mark away, left out is what counts nothing above or nothing below the line, and what changes the mark
    of a pair in plain right or plain wrong order (TF, FT) where the structure has the usual marks there: none of it is
    a preference loss.
    """
    place = name_in_landscape(structure)
    if place is not None and place[1] == "reference":
        whole = landscape("reference")
        names = whole.looser(place[0]) if up else whole.tighter(place[0])
        return [Neighbour(reference_name(name), whole.node(name).structure) for name in names]
    found = []
    for row, mark, other in structure.steps(up=up):
        if other.top and other.bottom and row not in decisive(structure):
            found.append(Neighbour(_called(other), other, row, mark))
    return found


def decisive(structure: Structure) -> set[int]:
    """Return the rows of a pair in plain right and plain wrong order, if they have the usual marks."""
    names = [(atom.model, atom.response or "") for atom in structure.atoms]
    right = {("M", "w"): True, ("M", "l"): False, ("Ref", "w"): False, ("Ref", "l"): True}
    if not {("M", "w"), ("M", "l")} <= set(names) or not set(names) <= set(right):
        return set()
    rows = []
    for flip, usual in ((False, "win"), (True, "lose")):
        row = row_number([right[name] ^ flip for name in names])
        if structure.mark(row) == usual:
            rows.append(row)
    return set(rows)


def _called(structure: Structure) -> str:
    known = name_in_landscape(structure)
    if known is None:
        return log_ratio(structure)
    return known[0] if known[1] == "sixteen" else reference_name(known[0])


def reference_name(name: str) -> str:
    """Return what the reference form of a node is called."""
    return "DPO" if name == "CPO" else f"{name} with reference"


def is_usual(structure: Structure) -> bool:
    """Whether TF counts only for the winner and FT only against it, over M(w) and M(l)."""
    return structure.atoms == PAIR and structure.mark(0b10) == "win" and structure.mark(0b01) == "lose"
