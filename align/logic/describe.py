"""What is known of a loss's structure as plain data: for ``align logic``, its pages and other programs."""

from collections.abc import Mapping
from typing import Any

from align.logic.circuit import log_ratio, row_weights, text
from align.logic.formula import Atom
from align.logic.known import Loss, structure_of
from align.logic.landscape import Landscape, Neighbour, name_in_landscape, neighbours, reference_name
from align.logic.predict import STARTS, column_class, leading_ratio, outlook, start, unread, warnings
from align.logic.printing import english, infix, prefix, unicode
from align.logic.slopes import log_ratio_at
from align.logic.structure import Structure

MOST_ROWS = 64
"""Rows up to which marks are listed."""


def shown(loss: Loss) -> dict[str, Any]:
    """Return all that is known of a loss.

    Formulas are in ASCII, as :func:`align.logic.parsing.parse` reads them. A loss without a structure of its own has
    None in their place, and ``parts``, each with what is known of it, or the reason why it has none.
    """
    found: dict[str, Any] = {"name": loss.name, "kind": loss.kind, "about": loss.about}
    found |= structure_facts(loss.structure) if loss.structure is not None else dict.fromkeys(_KEYS)
    found |= {"link": loss.link or None, "decreasing": loss.decreasing}
    if loss.structure is not None:
        found["warnings"] = warnings(loss.structure, link=loss.link, decreasing=loss.decreasing)
    if loss.entry is not None:
        found |= {key: loss.entry[key] for key in ("outcome", "stripped", "source")}
        found["parts"] = [_part(part) for part in loss.entry["parts"]]
    return found


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    kept = {key: part[key] for key in ("role", "link", "weight", "case", "refusal", "facts") if part.get(key)}
    if "top" not in part:
        return kept
    structure = structure_of(part)
    return kept | {key: value for key, value in structure_facts(structure).items() if key in _OF_PARTS}


def structure_facts(structure: Structure) -> dict[str, Any]:
    """Return what is known of a structure."""
    weakest, simplest = structure.weakest_core(), structure.simplest_core()
    foretold = outlook(structure)
    place = name_in_landscape(structure)
    return {
        "landscape": place and (place[0] if place[1] == "sixteen" else reference_name(place[0])),
        "atoms": [atom.name for atom in structure.atoms],
        "core": infix(weakest.formula),
        "core_prefix": prefix(weakest.formula),
        "reading": english(weakest.formula),
        "simplest_core": infix(simplest.formula),
        "strongest_core": infix(structure.strongest_core().formula),
        "exact": simplest.exact,
        "cores": structure.cores(),
        "condition": infix(structure.condition()),
        "additive": infix(structure.additive()),
        "rho": log_ratio(structure),
        "marks": marks(structure),
        "column_class": column_class(structure),
        "small_probabilities": foretold
        and {
            "rho": leading_ratio(structure),
            "class": foretold.title,
            "consequence": foretold.consequence,
            "start": STARTS[start(structure) or "even"],
        },
        "skew_symmetric": structure.is_skew(),
        "unread": unread(structure),
        "neighbours": {
            "tighter": [one.name for one in near(structure, up=False)],
            "looser": [one.name for one in near(structure, up=True)],
        }
        if structure.n <= MOST_ATOMS_NEAR
        else None,
    }


_OF_PARTS = ("atoms", "core", "condition", "additive", "rho", "column_class", "small_probabilities")
_KEYS = ("core", "condition", "additive", "rho", "marks", "column_class", "neighbours")
MOST_ATOMS_NEAR = 4
"""Atoms up to which neighbours are named."""


def near(structure: Structure, *, up: bool) -> list[Neighbour]:
    """Return the neighbours of a structure; none for one of many atoms, which has hundreds."""
    return neighbours(structure, up=up) if structure.n <= MOST_ATOMS_NEAR else []


def marks(structure: Structure) -> list[dict[str, Any]]:
    """Return the rows with their marks; of a table of more than :data:`MOST_ROWS`, none."""
    if 1 << structure.n > MOST_ROWS:
        return []
    return [{"row": row, "mark": mark} for row, mark in structure.rows()]


def table(structure: Structure, at: Mapping[Atom, float] | None = None) -> list[dict[str, Any]]:
    """Return each row with its mark and its weight, as a product and, for given probabilities, as a number."""
    found = []
    for row, weight in row_weights(structure):
        entry: dict[str, Any] = {"row": structure.named(row), "mark": structure.mark(row), "weight": text(weight)}
        if at is not None:
            entry["mass"] = _mass(structure, row, at)
        found.append(entry)
    return found


def _mass(structure: Structure, row: int, at: Mapping[Atom, float]) -> float:
    mass = 1.0
    for atom, value in zip(structure.atoms, structure.named(row).values(), strict=True):
        mass *= at[atom] if value else 1 - at[atom]
    return mass


def pulls(structure: Structure, logs: Mapping[Atom, float]) -> dict[str, float]:
    """Return the log-ratio at given log-probabilities and its slope by each of the policy's."""
    slope = log_ratio_at(structure, logs)
    return {"rho": slope.value} | {
        f"d rho / d log {atom}": slope.by.get(atom, 0.0) for atom in structure.atoms if atom.model == "M"
    }


def landscape_facts(landscape: Landscape) -> dict[str, Any]:
    """Return a landscape: nodes, most constrained first, and edges from the more constrained to the less."""
    return {
        "nodes": [
            {
                "name": node.name,
                "marks": marks(node.structure),
                "region": infix(node.core),
                "condition": infix(node.structure.condition()),
                "additive": infix(node.structure.additive()),
                "rho": log_ratio(node.structure),
                "column_class": column_class(node.structure),
                "known": node.known,
            }
            for node in landscape.nodes
        ],
        "edges": [list(edge) for edge in landscape.edges],
        "regions": landscape.regions(),
    }


def in_signs(formula: str) -> str:
    """Return a formula that is kept in ASCII in the signs of logic."""
    from align.logic.parsing import parse

    return unicode(parse(formula))
