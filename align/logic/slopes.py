"""Values and slopes of a structure's log-ratio at given log-probabilities, without torch: for tables and checks."""

import math
from collections.abc import Mapping
from dataclasses import dataclass

from align.logic.circuit import Circuit, Factor, Number, Product, ratio
from align.logic.formula import Atom
from align.logic.structure import Structure

CERTAIN = 1e-8
"""log p above minus this counts as certain, as in training."""


@dataclass(frozen=True, slots=True)
class Slope:
    """A number and how it changes with the log-probability of each atom.

    Attributes:
        value: the number.
        by: its derivative by each atom's log-probability; atoms that are not there do not matter.
    """

    value: float
    by: Mapping[Atom, float]


def log_ratio_at(structure: Structure, logs: Mapping[Atom, float]) -> Slope:
    """Return the log-ratio at given log-probabilities, and its slopes.

    Examples:
        >>> from align.logic.formula import L, W
        >>> found = log_ratio_at(Structure.of(L >> W, W | L, W & L), {W: -1.0, L: -3.0})
        >>> found.value, found.by[W], found.by[L]
        (2.0, 1.0, -1.0)
    """
    top, bottom = (logarithm(side, logs) for side in ratio(structure))
    atoms = {*top.by, *bottom.by}
    return Slope(top.value - bottom.value, {atom: top.by.get(atom, 0.0) - bottom.by.get(atom, 0.0) for atom in atoms})


def logarithm(node: Circuit, logs: Mapping[Atom, float]) -> Slope:
    """Return the logarithm of a circuit's value, and its slopes."""
    if isinstance(node, Number):
        return Slope(0.0 if node.value else -math.inf, {})
    if isinstance(node, Factor):
        return _factor(node, logs)
    parts = [logarithm(part, logs) for part in node.parts]  # type: ignore[attr-defined]
    if isinstance(node, Product):
        return Slope(sum(part.value for part in parts), _added([(1.0, part) for part in parts]))
    largest = max(part.value for part in parts)
    if largest == -math.inf:
        return parts[0]
    shares = [math.exp(part.value - largest) for part in parts]
    total = sum(shares)
    return Slope(largest + math.log(total), _added([(s / total, part) for s, part in zip(shares, parts, strict=True)]))


def _factor(node: Factor, logs: Mapping[Atom, float]) -> Slope:
    if node.atom.model == "Const":
        share = float(node.atom.response or 0)
        return Slope(math.log(share if node.holds else 1 - share), {})
    log = logs[node.atom]
    if node.holds:
        return Slope(log, {node.atom: 1.0})
    bounded = min(log, -CERTAIN)
    slope = -math.exp(bounded) / -math.expm1(bounded)
    return Slope(math.log(-math.expm1(bounded)) + slope * (log - bounded), {node.atom: slope})


def _added(parts: list[tuple[float, Slope]]) -> dict[Atom, float]:
    found: dict[Atom, float] = {}
    for share, part in parts:
        for atom, slope in part.by.items():
            found[atom] = found.get(atom, 0.0) + share * slope
    return found


def link_at(link: str, z: float, beta: float) -> tuple[float, float]:
    """Return the loss of a log-ratio beyond its margin, and its slope, as a formula's objective has them.

    Raises:
        ValueError: for another link than logistic, squared or hinge.
    """
    scale, shift = {"squared": (1.0, 0.5 / beta if beta else 0.0), "hinge": (1.0, beta)}.get(link, (beta, 0.0))
    loss, slope = loss_at(link, scale * z - shift)
    return loss, scale * slope


def loss_at(link: str, z: float) -> tuple[float, float]:
    """Return a link's loss and slope: -log sigmoid(z), z^2, or max(0, -z).

    Raises:
        ValueError: for another link.
    """
    if link == "logistic":
        loss = math.log1p(math.exp(-z)) if z > 0 else -z + math.log1p(math.exp(z))
        return loss, -1 / (1 + math.exp(min(z, 700.0)))
    if link == "squared":
        return z * z, 2 * z
    if link == "hinge":
        return max(0.0, -z), -1.0 if z < 0 else 0.0
    raise ValueError(f"no closed form is known for the link {link!r}; known: logistic, squared, hinge")
