"""Losses by what users call them: a registered objective, a node of the landscape, a formula."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from align.logic.formula import FALSE, TRUE, Atom, Formula, chain
from align.logic.landscape import KNOWN, KNOWN_WITH_REFERENCE, name_in_landscape, reference_name, sixteen
from align.logic.parsing import parse
from align.logic.structure import Structure
from align.logic.zoo import table

_CHAIN = re.compile(r"chain\s*\(?\s*(\d+)\s*\)?")
_REFERENCE = re.compile(r"(.+?)(?:[ -]with[ -]reference|[-_ ]ref)")
UNPAIRED = {
    "unpaired_chosen": Structure.of_sides(Atom("M", "w"), Atom("Ref", "w")),
    "unpaired_rejected": Structure.of_sides(Atom("Ref", "l"), Atom("M", "l")),
}
"""One response against its reference: what unpaired data train."""


@dataclass(frozen=True, slots=True)
class Loss:
    """A loss that a user named.

    Attributes:
        name: what it is called; the formula where it has no name.
        structure: what it counts; None for one that counts nothing, or is a sum of several.
        link: of its log-ratio.
        decreasing: whether a larger log-ratio always costs less; None where that is not known.
        kind: ``objective``, ``landscape`` or ``formula``.
        about: a line on what it is; empty for none.
        entry: of the table of objectives, for one.
        part: of the entry, that the structure is of.
    """

    name: str
    structure: Structure | None
    link: str = "logistic"
    decreasing: bool | None = True
    kind: str = "formula"
    about: str = ""
    entry: dict[str, Any] | None = None
    part: dict[str, Any] | None = None

    def needed(self) -> Structure:
        """Return the structure.

        Raises:
            ValueError: if the loss has none, saying why.
        """
        if self.structure is not None:
            return self.structure
        parts = [part for part in (self.entry or {}).get("parts", []) if "top" in part]
        if parts:
            choices = " or ".join(f"{self.name}:{number}" for number in range(1, len(parts) + 1))
            raise ValueError(f"{self.name} is {len(parts)} structures, not one: name {choices}")
        reasons = "; ".join(part["refusal"] for part in (self.entry or {}).get("parts", []))
        raise ValueError(f"{self.name} has no structure: {reasons}")


def find(text: str, condition: str | None = None, additive: str | None = None) -> Loss:
    """Return the loss that a name or a formula stands for.

    Names: registered objectives (``dpo``; ``bco_pair:2`` for the second term of a sum), nodes of the landscape
    (``cCPO``; ``cCPO-ref`` for its reference form), ``chain(4)``, ``unpaired_chosen``, ``unpaired_rejected``. Anything
    else is a formula: the core, with an optional condition and an additive formula.

    Raises:
        ValueError: for what is neither, or a condition beside a name.

    Examples:
        >>> find("cCPO").structure.marks()
        ('win', 'win', 'lose', 'neither')
        >>> find("M(l) -> M(w)", condition="M(w) | M(l)").structure == find("cCPO").structure
        True
    """
    named = _named(text.strip())
    if named is None:
        core = parse(text)
        _refuse_lone_word(text, core)
        sides = [TRUE if condition is None else parse(condition), FALSE if additive is None else parse(additive)]
        return _of_formula(text, Structure.of(core, *sides))
    if condition is not None or additive is not None:
        raise ValueError(f"{text} is a name: a condition or an additive formula goes with a formula only")
    return named


def _of_formula(text: str, structure: Structure) -> Loss:
    place = name_in_landscape(structure)
    about = ""
    if place is not None:
        about = f"the same as {place[0] if place[1] == 'sixteen' else reference_name(place[0])} of the landscape"
    return Loss(text, structure, about=about)


def _refuse_lone_word(text: str, core: Formula) -> None:
    if isinstance(core, Atom) and core.response is None:
        near = get_close_matches(text.strip(), names(), n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "align logic zoo lists the names"
        raise ValueError(f"no loss {text.strip()!r}, and a single name is no formula of a preference; {hint}")


def names() -> list[str]:
    """Return all names there are: objectives, nodes of the landscape, one response against its reference."""
    return [*table(), *sixteen(), "DPO", *UNPAIRED]


def _named(text: str) -> Loss | None:
    text, _, number = text.partition(":") if re.fullmatch(r"\w+:\d+", text) else (text, "", "")
    for spelling in (text, *_other_spellings(text)):
        if spelling in table():
            return _objective(table()[spelling], number)
        if spelling in sixteen():
            return Loss(spelling, sixteen()[spelling], kind="landscape", about=KNOWN.get(spelling, ""))
    if text in UNPAIRED:
        return Loss(text, UNPAIRED[text], about="one response against its reference: unpaired data")
    if match := _CHAIN.fullmatch(text):
        return Loss(text, Structure.of(chain(int(match[1]))), about="a ranking of responses, the best first")
    if (match := _REFERENCE.fullmatch(text)) and (plain := _named(match[1])) and plain.structure is not None:
        about = KNOWN_WITH_REFERENCE.get(plain.name, "")
        form = plain.structure.reference_form()
        return Loss(reference_name(plain.name), form, kind="landscape", about=about)
    return None


def _other_spellings(text: str) -> list[str]:
    """Return names that are spelt alike but for capitals, and the objective that an alias stands for."""
    aliases = [name for name, entry in table().items() if text in entry["aliases"]]
    return aliases + [name for name in (*table(), *sixteen()) if name.lower() == text.lower()]


def _objective(entry: dict[str, Any], number: str) -> Loss:
    parts = [part for part in entry["parts"] if "top" in part]
    name = entry["name"]
    if number:
        if not 1 <= int(number) <= len(parts):
            raise ValueError(f"{name}:{number} does not exist: {name} has {len(parts)} parts that are structures")
        return _part(entry, f"{name}:{number}", parts[int(number) - 1])
    if entry["outcome"] == "structure":
        return _part(entry, name, parts[0])
    return Loss(name, None, "", None, "objective", entry["title"], entry)


def _part(entry: dict[str, Any], name: str, part: dict[str, Any]) -> Loss:
    structure = structure_of(part)
    return Loss(name, structure, part["link"], part["decreasing"], "objective", entry["title"], entry, part)


def structure_of(part: Mapping[str, Any]) -> Structure:
    """Return the structure of a part of the table."""
    atoms = tuple(_atom(name) for name in part["atoms"])
    return Structure(atoms, int(part["top"], 16), int(part["bottom"], 16))


def _atom(name: str) -> Atom:
    found = parse(name)
    assert isinstance(found, Atom)
    return found
