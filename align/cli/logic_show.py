"""``align logic show`` and ``table``: what is known of one loss."""

import argparse
from collections.abc import Iterator, Mapping
from typing import Any

from align.cli.logic import add_loss, add_sides, print_json
from align.logic.describe import in_signs, pulls, shown, table
from align.logic.formula import Atom
from align.logic.known import find
from align.logic.parsing import parse
from align.logic.structure import SIGNS, Structure

WIDTH = 14


def add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    """Add a command's arguments."""
    add_loss(parser)
    add_sides(parser)
    if name == "table":
        parser.add_argument("--at", metavar="ATOM=P,...", help="probabilities of atoms, for each row's mass")


def run_show(arguments: argparse.Namespace) -> int:
    """Print what a loss means."""
    found = shown(find(arguments.loss, arguments.condition, arguments.additive))
    if arguments.json:
        print_json(found)
    else:
        print("\n".join(page(found)))
    return 0


def run_table(arguments: argparse.Namespace) -> int:
    """Print the truth table of a loss."""
    loss = find(arguments.loss, arguments.condition, arguments.additive)
    structure = loss.needed()
    if structure.n > 10:
        raise ValueError(f"{loss.name} has {structure.n} atoms, a table of {1 << structure.n} rows: show 10 at most")
    at = None if arguments.at is None else probabilities(arguments.at, structure)
    rows = table(structure, at)
    if arguments.json:
        extra = {} if at is None else {"totals": totals(rows)}
        print_json({"name": loss.name, "atoms": [a.name for a in structure.atoms], "rows": rows, **extra})
        return 0
    print("\n".join(_table_lines(structure, rows)))
    if at is not None:
        sides = totals(rows)
        print(f"\n✓ {sides['win']:.6g}   ✗ {sides['lose']:.6g}   ρ = log(✓/✗) = {_ratio(sides)}")
        print("\n".join(f"{name} = {value:.6g}" for name, value in _slopes(structure, at).items()))
    return 0


def page(found: Mapping[str, Any]) -> Iterator[str]:
    """Yield the lines that say what a loss means."""
    yield f"{found['name']}" + (f": {found['about']}" if found["about"] else "")
    if found["core"] is None:
        yield from _without_structure(found)
        return
    yield f"  {found['reading']}"
    yield ""
    yield from _formulas(found)
    yield _line("link", _link(found))
    for text in found.get("stripped", ()):
        yield _line("stripped", text)
    yield ""
    yield from _marks(found["atoms"], found["marks"])
    yield from _outlook(found)
    yield from _near(found["neighbours"]) if found["neighbours"] else [_line("neighbours", "not listed: too many")]
    yield from (f"note: {warning}" for warning in found["warnings"])
    if found.get("source"):
        yield f"source: {found['source']}"


def _formulas(found: Mapping[str, Any]) -> Iterator[str]:
    yield _line("core P", in_signs(found["core"]) + "   (the weakest)")
    if found["cores"] > 1:
        how = "" if found["exact"] else ", not provably the shortest"
        others = f"   ({found['cores']} cores mean the same; shortest{how})"
        yield _line("", in_signs(found["simplest_core"]) + others)
    yield _line("condition P_C", in_signs(found["condition"]))
    yield _line("additive P_A", in_signs(found["additive"]))
    yield _line("ρ", found["rho"])


def _link(found: Mapping[str, Any]) -> str:
    facts: list[str] = next((part["facts"] for part in found.get("parts", ()) if part.get("facts")), [])
    return "; ".join(fact.removeprefix("link: ") for fact in facts) if facts else str(found["link"])


def _outlook(found: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    small = found["small_probabilities"]
    if small:
        yield _line("where small", f"ρ → {small['rho']}, {small['class']}: {small['consequence']}")
        yield _line("", small["start"])
    said = "yes: exchanging winner and loser turns ρ's sign" if found["skew_symmetric"] else "no"
    yield _line("skew", said)


def _near(near: Mapping[str, list[str]]) -> Iterator[str]:
    for name, losses in near.items():
        shortened = [*losses[:6], f"{len(losses) - 6} more"] if len(losses) > 7 else losses
        yield _line(name, "; ".join(shortened) or "none")


def _without_structure(found: Mapping[str, Any]) -> Iterator[str]:
    parts = found["parts"]
    if found["outcome"] == "refused":
        yield "It has no structure: " + "; ".join(part["refusal"] for part in parts)
    else:
        kind = "a sum of" if found["outcome"] == "sum" else "one of"
        yield f"It is {kind} {len(parts)} structures."
    numbered = 0
    for part in parts:
        if "core" not in part:
            continue
        numbered += 1
        yield ""
        yield f"{found['name']}:{numbered}" + (f", {part['case']}" if part.get("case") else "")
        yield _line("core P", in_signs(part["core"]))
        yield _line("ρ", part["rho"])
        yield from (_line("", fact) for fact in part["facts"])
    yield ""
    yield f"source: {found['source']}"


def _marks(atoms: list[str], rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the truth table; rows that do not count at all are left out of a large one."""
    if not rows:
        yield _line("marks", f"{1 << len(atoms)} rows, not listed")
        return
    shown_rows = rows if len(rows) <= 16 else [row for row in rows if row["mark"] != "neither"]
    if not atoms:
        yield _line("mark", SIGNS[rows[0]["mark"]])
        return
    yield "  " + "  ".join(atoms)
    for row in shown_rows:
        cells = (f"{'T' if value else 'F':<{len(name)}}" for name, value in row["row"].items())
        yield "  " + "  ".join(cells) + "  " + SIGNS[row["mark"]]
    if len(shown_rows) < len(rows):
        yield f"  {len(rows) - len(shown_rows)} rows that do not count are left out"


def _table_lines(structure: Structure, rows: list[dict[str, Any]]) -> Iterator[str]:
    width = max(len(row["weight"]) for row in rows)
    masses = any("mass" in row for row in rows)
    yield "  ".join(a.name for a in structure.atoms) + f"  mark  {'weight':{width}}" + ("  mass" if masses else "")
    for row in rows:
        cells = "  ".join(f"{'T' if value else 'F':<{len(name)}}" for name, value in row["row"].items())
        mass = f"  {row['mass']:.6g}" if "mass" in row else ""
        yield f"{cells}  {SIGNS[row['mark']]:<4}  {row['weight']:{width}}{mass}".rstrip()


def probabilities(text: str, structure: Structure) -> dict[Atom, float]:
    """Read ``M(w)=0.3,M(l)=0.2``, or ``w=0.3,l=0.2,ref_w=...`` for short.

    Raises:
        ValueError: for a text that is none, a probability outside (0, 1), or an atom that is missing or not there.
    """
    found: dict[Atom, float] = {}
    for item in text.split(","):
        name, equals, value = item.partition("=")
        atom = _short(name.strip()) if equals else None
        if atom is None or atom not in structure.atoms:
            known = ", ".join(a.name for a in structure.atoms)
            raise ValueError(
                f"--at: {item.strip()!r} gives no probability of an atom of this loss; its atoms are {known}"
            )
        if atom in found:
            raise ValueError(f"--at: {atom} is given twice")
        found[atom] = _share(name.strip(), value)
    found |= {atom: float(atom.response or 0) for atom in structure.atoms if atom.model == "Const"}
    missing = [atom.name for atom in structure.atoms if atom not in found]
    if missing:
        raise ValueError(f"--at: no probability of {', '.join(missing)}")
    return found


def _short(name: str) -> Atom | None:
    short = {"w": Atom("M", "w"), "l": Atom("M", "l")}
    short |= {f"{prefix}{side}": Atom("Ref", side) for prefix in ("ref_", "r") for side in ("w", "l")}
    if name in short:
        return short[name]
    formula = parse(name)
    return formula if isinstance(formula, Atom) else None


def _share(name: str, value: str) -> float:
    try:
        share = float(value)
    except ValueError:
        share = -1.0
    if not 0 < share < 1:
        raise ValueError(f"--at: {name} must have a probability between 0 and 1, got {value.strip()!r}")
    return share


def totals(rows: list[dict[str, Any]]) -> dict[str, float]:
    """Return the mass that counts for and against the winner."""
    return {side: sum(row["mass"] for row in rows if row["mark"] in (side, "both")) for side in ("win", "lose")}


def _ratio(sides: Mapping[str, float]) -> str:
    import math

    return f"{math.log(sides['win'] / sides['lose']):.6g}" if sides["win"] > 0 and sides["lose"] > 0 else "undefined"


def _slopes(structure: Structure, at: Mapping[Atom, float]) -> dict[str, float]:
    import math

    if not structure.top or not structure.bottom:
        return {}
    found = pulls(structure, {atom: math.log(p) for atom, p in at.items()})
    return {name.replace("d rho / d log", "∂ρ/∂log"): value for name, value in found.items() if name != "rho"}


def _line(name: str, text: str) -> str:
    return f"{name:{WIDTH}}{text}"
