"""What a loss would do on log-probabilities that were seen: which pairs still pull, and what both down earns."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

from align.logic.formula import REF_L, REF_W, Atom, L, W
from align.logic.predict import OUTLOOKS, column_class
from align.logic.slopes import log_ratio_at, loss_at
from align.logic.structure import Structure

VANISHED = 1e-3
"""A pair whose two pulls are together below this share of scale and weight is counted as one that pulls no more."""

ATOMS: Mapping[str, Atom] = {"chosen": W, "rejected": L, "ref_chosen": REF_W, "ref_rejected": REF_L}
"""Columns of log-probabilities, and the atoms they weigh."""


@dataclass(frozen=True, slots=True)
class Setting:
    """How the loss would be trained.

    Attributes:
        link: logistic, squared or hinge, of z; see :func:`align.logic.slopes.loss_at`.
        scale: z is this many times the log-ratio,
        margin: less this.
        weight: what the link is multiplied by.
        normalised: whether log-probabilities are divided by lengths.
    """

    link: str = "logistic"
    scale: float = 1.0
    margin: float = 0.0
    weight: float = 1.0
    normalised: bool = False

    @classmethod
    def of(cls, link: str, beta: float, margin: float = 0.0, *, normalised: bool = False) -> "Setting":
        """Return what a formula's objective does with these settings.

        Raises:
            ValueError: for settings that it would refuse.
        """
        if not math.isfinite(beta) or not math.isfinite(margin) or beta < 0 or (beta == 0 and link != "hinge"):
            raise ValueError(f"beta must be greater than 0 and finite, and the margin finite; got {beta} and {margin}")
        if link == "logistic":
            return cls(link, beta, beta * margin, normalised=normalised)
        return cls(link, 1.0, margin + (beta if link == "hinge" else 0.5 / beta), normalised=normalised)

    def loss(self, log_ratio: float) -> tuple[float, float]:
        """Return the loss at a log-ratio, and its slope by it."""
        found, slope = loss_at(self.link, self.scale * log_ratio - self.margin)
        return self.weight * found, self.weight * self.scale * slope


@dataclass(frozen=True, slots=True)
class _Pair:
    loss: float
    chosen: float
    rejected: float
    both_down: float
    probabilities: tuple[float, float]


def examine(structure: Structure, rows: Sequence[Mapping[str, float]], setting: Setting) -> dict[str, Any]:
    """Return what is found over pairs.

    Args:
        structure: over M and Ref of w and l.
        rows: of each pair the columns of :data:`ATOMS` that the structure needs, in nats, and where the setting is
            normalised ``chosen_length`` and ``rejected_length`` in tokens.
        setting: how it would be trained.

    Raises:
        ValueError: for a column that is missing, naming the row and the column, or an atom that no column has.
    """
    unknown = [atom.name for atom in structure.atoms if atom not in ATOMS.values() and atom.model != "Const"]
    if unknown:
        raise ValueError(f"no column has the log-probability of {', '.join(unknown)}")
    pairs = [_pair(structure, row, setting, number) for number, row in enumerate(rows, start=1)]
    scale = setting.scale * setting.weight
    vanished = sum(abs(p.chosen) + abs(p.rejected) < VANISHED * scale for p in pairs) / len(pairs)
    finite = [p for p in pairs if all(map(math.isfinite, (p.loss, p.chosen, p.rejected)))]
    small = sum(max(p.probabilities) < 0.01 for p in pairs) / len(pairs)
    found = {
        "pairs": len(pairs),
        "column_class": column_class(structure),
        "loss": sum(p.loss for p in pairs) / len(pairs),
        "d_w": median(p.chosen for p in pairs),
        "d_l": median(p.rejected for p in pairs),
        "small": small,
        "vanished": vanished,
        "both_down_pays": sum(p.both_down < p.loss - 1e-12 for p in pairs) / len(pairs),
        "finite": len(finite) / len(pairs),
        "lowest": min(min(p.probabilities) for p in pairs),
        "highest": max(max(p.probabilities) for p in pairs),
    }
    return found | {"advice": _advice(structure, found, setting)}


def _pair(structure: Structure, row: Mapping[str, float], setting: Setting, number: int) -> _Pair:
    logs = {atom: _log(row, column, setting, number) for column, atom in ATOMS.items() if atom in structure.atoms}
    slope = log_ratio_at(structure, logs)
    loss, by_ratio = setting.loss(slope.value)
    lower = {atom: log - 1.0 if atom.model == "M" else log for atom, log in logs.items()}
    both_down, _ = setting.loss(log_ratio_at(structure, lower).value)
    chosen, rejected = (by_ratio * slope.by.get(atom, 0.0) for atom in (W, L))
    seen = tuple(math.exp(min(logs.get(atom, -math.inf), 0.0)) for atom in (W, L))
    return _Pair(loss, -chosen, rejected, both_down, seen)  # type: ignore[arg-type]


def _log(row: Mapping[str, float], column: str, setting: Setting, number: int) -> float:
    value = _number(row, column, number)
    if value > 0:
        raise ValueError(f"row {number}: {column} is {value}; a log-probability is at most 0")
    if not setting.normalised:
        return value
    side = column.removeprefix("ref_")
    length = _number(row, f"{side}_length", number)
    if length < 1:
        raise ValueError(f"row {number}: {side}_length is {length}; a completion has at least one token")
    return value / length


def _number(row: Mapping[str, float], column: str, number: int) -> float:
    value = row.get(column)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        problem = "is missing" if value is None else f"is {value!r}, not a number"
        raise ValueError(f"row {number}: {column} {problem}")
    return float(value)


def _advice(structure: Structure, found: Mapping[str, Any], setting: Setting) -> list[str]:
    said = []
    mark = found["column_class"]
    if mark is not None and found["small"] > 0.5:
        outlook = OUTLOOKS[mark]
        said.append(f"{found['small']:.0%} of pairs have both probabilities below 0.01: {outlook.consequence}")
    if found["small"] > 0.5 and not setting.normalised and mark in ("win", "both"):
        said.append("length-normalised probabilities are far larger: try length_normalised")
    if found["vanished"] > 0.2:
        said.append(f"{found['vanished']:.0%} of pairs pull no more (less than {VANISHED:g} of the scale)")
    if found["both_down_pays"] > 0.5 and mark == "win":
        share = f"in {found['both_down_pays']:.0%} of pairs a nat less of both lowers the loss"
        said.append(f"{share}: add a likelihood of the chosen ({{name: sft, weight: 0.1}})")
    if found["highest"] > 1 - 1e-6 and any(atom.model == "M" for atom in structure.atoms):
        said.append("some probabilities are 1: log(1 - p) is at its bound there")
    if found["finite"] < 1:
        said.append(f"{1 - found['finite']:.0%} of pairs have no finite loss or pull")
    return said or ["nothing stands out"]
