"""Writes docs/logic-zoo.md from the kept table: ``python scripts/logic_reference.py > docs/logic-zoo.md``."""

from collections.abc import Iterator, Mapping
from typing import Any

from align.logic.circuit import log_ratio
from align.logic.describe import in_signs, structure_facts
from align.logic.known import structure_of
from align.logic.landscape import name_in_landscape, reference_name
from align.logic.zoo import table

HEAD = """# What every registered objective means

Made by `python scripts/logic_reference.py > docs/logic-zoo.md` from `align/logic/zoo.json`, which `align logic zoo
--write` makes by running each objective's own code on symbols, under its default settings; tests hold both fresh.
`align logic show NAME` says the same of one, `align logic decompile NAME KEY=VALUE` of other settings. What formulas
and marks are: [logic.md](logic.md). *where small* is what the log-ratio becomes at small probabilities.

"""
HEADS = ("objective", "log-ratio", "is", "core P", "link", "where small", "taken off, and what else to know")


def main() -> None:
    """Print the page."""
    print(HEAD + "\n".join(_table()))


def _table() -> Iterator[str]:
    yield _line(HEADS)
    yield _line(["---"] * len(HEADS))
    for entry in table().values():
        cores = [part for part in entry["parts"] if part["role"] != "added"]
        for place, part in enumerate(cores):
            name = f"[{entry['name']}](objectives.md#{entry['name']})" if place == 0 else ""
            yield _line(_cells(name, entry, part))


def _cells(name: str, entry: Mapping[str, Any], part: Mapping[str, Any]) -> list[str]:
    if "top" not in part:
        return [name, "none", "", "", "", "", part["refusal"]]
    structure = structure_of(part)
    found = structure_facts(structure)
    place = name_in_landscape(structure)
    called = "" if place is None else place[0] if place[1] == "sixteen" else reference_name(place[0])
    small = found["small_probabilities"]
    facts = [fact for fact in part["facts"] if not fact.startswith("link: ")]
    notes = [*([part["case"]] if part["case"] else []), *facts, *(entry["stripped"] if name else [])]
    link = part["link"] + (f" x {part['weight']}" if part["weight"] != "1" else "")
    return [
        name,
        log_ratio(structure),
        called,
        in_signs(found["core"]),
        link,
        small["class"] if small else "",
        "; ".join(notes),
    ]


def _line(cells: Any) -> str:
    return "| " + " | ".join(str(cell).replace("|", "\\|").replace("*", "\\*") for cell in cells) + " |"


if __name__ == "__main__":
    main()
