"""What is known of an objective as plain data: for ``align objectives``, for docs/objectives.md, for programs."""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from align.objectives.base import Objective
from align.objectives.cards import pretty
from align.objectives.mixture import trains_unpaired
from align.objectives.registry import OBJECTIVES


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """One setting of an objective.

    Attributes:
        name: as in a recipe.
        default: its default value.
        meaning: from the docstring of the class that declares it.
    """

    name: str
    default: Any
    meaning: str


def settings_of(cls: type[Objective]) -> list[Setting]:
    """Return the settings of an objective's class, its own first."""
    meanings: dict[str, str] = {}
    for base in reversed(cls.__mro__):
        meanings |= _attributes(base.__doc__ or "")
    declared = {f.name: f for f in fields(cls)}  # type: ignore[arg-type]
    order = dict.fromkeys(n for base in cls.__mro__ for n in inspect.get_annotations(base) if n in declared)
    return [Setting(name=n, default=declared[n].default, meaning=meanings.get(n, "")) for n in order]


def summary(name: str) -> dict[str, Any]:
    """Return an objective in a few words: name, title, needs, data, d_w, d_l, source."""
    objective, card = OBJECTIVES.build(name), OBJECTIVES.card(name)
    return {
        "name": name,
        "title": card.title,
        "needs": list(objective.needs),
        "data": data_of(objective),
        "d_w": card.d_w,
        "d_l": card.d_l,
        "source": card.source,
    }


def details(name: str) -> dict[str, Any]:
    """Return all that is known of an objective, by its name or an alias.

    Raises:
        ValueError: for an unknown name.
    """
    name = OBJECTIVES.resolve(name)
    card, objective = OBJECTIVES.card(name), OBJECTIVES.build(name)
    return {
        **summary(name),
        "aliases": OBJECTIVES.aliases(name),
        "loss": card.loss,
        "where": dict(card.where),
        "per_token": card.per_token,
        "couples_pairs": objective.couples_pairs,
        "trains_unpaired": trains_unpaired(objective),
        "settings": [
            {"name": s.name, "default": s.default, "meaning": s.meaning} for s in settings_of(OBJECTIVES[name])
        ],
        "limits": [limit.says for limit in card.limits],
        "does": card.does,
        "checked": card.checked,
        "departs": card.departs,
        "diverges": card.diverges,
    }


def data_of(objective: Objective) -> str:
    """Return what data an objective trains on: pairs, scored pairs, unpaired, positives, negatives."""
    if objective.needs_mismatched:
        return "unpaired"
    if objective.needs_scores:
        return "scored pairs"
    if len(objective.reads) > 1:
        return "pairs"
    return "positives" if "chosen" in objective.reads else "negatives"


CHECKED = {
    "source": "read in the paper or its authors' code",
    "TRL 1.16": "equal to TRL 1.16 in value and gradient",
    "derived": "derived from what the paper states, or from a second source",
    "reconstructed": "reconstructed: not found in a source that could be read here",
}
"""What a card's ``checked`` says, in words."""


def formula_lines(known: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the formulas of :func:`details` as (what it is, formula) in the signs of papers."""
    by = " (by the log-probability of one token)" if known["per_token"] else ""
    where = [(f"  {name}", pretty(text)) for name, text in known["where"].items()]
    return [
        ("loss", pretty(known["loss"])),
        *where,
        (f"d_w{by}", pretty(known["d_w"])),
        (f"d_l{by}", pretty(known["d_l"])),
    ]


def _attributes(doc: str) -> dict[str, str]:
    """Return the entries of a docstring's section ``Attributes``."""
    section = inspect.cleandoc(doc).partition("\nAttributes:\n")[2]
    entries = re.findall(r"^    (\w+): (.*(?:\n {8}.*)*)", section, flags=re.MULTILINE)
    return {name: re.sub(r"\s+", " ", text) for name, text in entries}
