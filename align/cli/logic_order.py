"""``align logic check``, ``count``, ``neighbours``, ``meet``, ``join`` and ``diff``: how losses stand to each other."""

import argparse
import math
from collections.abc import Iterator, Mapping
from typing import Any

from align.cli.logic import add_loss, add_sides, print_json
from align.cli.logic_show import page
from align.logic.circuit import log_ratio
from align.logic.compare import Verdict, entails, equals, functional
from align.logic.counting import MEANINGS, counts, usual
from align.logic.describe import MOST_ATOMS_NEAR, near, pulls, shown
from align.logic.formula import Atom
from align.logic.known import Loss, find
from align.logic.landscape import Neighbour, name_in_landscape, reference_name
from align.logic.structure import SIGNS, Structure

POINTS = {"at 0.3 and 0.2": (0.3, 0.2), "at e^-40 and e^-45": (math.exp(-40), math.exp(-45))}
"""Probabilities of winner and loser, of policy and reference alike, at which two losses are compared."""


def add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    """Add a command's arguments."""
    if name == "count":
        parser.add_argument("--atoms", type=int, help="of the truth table; 2 where not given, with 4 beside it")
    elif name == "check":
        add_loss(parser, "one")
        parser.add_argument("relation", choices=("entails", "equals"), help="what is asked")
        add_loss(parser, "other")
        how = parser.add_mutually_exclusive_group()
        how.add_argument("--logical", action="store_true", help="by the rows that count (the default)")
        how.add_argument("--functional", action="store_true", help="by the log-ratios at all probabilities")
    elif name == "neighbours":
        add_loss(parser)
        add_sides(parser)
    else:
        add_loss(parser, "one")
        add_loss(parser, "other")


def run_check(arguments: argparse.Namespace) -> int:
    """Say whether one loss entails or equals another; exit code 1 where it does not."""
    one, other = find(arguments.one), find(arguments.other)
    verdict = _verdict(one.needed(), other.needed(), arguments)
    warning = _warning(one, other) if arguments.relation == "entails" else ""
    if arguments.json:
        asked = {"one": one.name, "relation": arguments.relation, "other": other.name}
        mode = "functional" if arguments.functional else "logical"
        found = {"holds": verdict.holds, "witness": verdict.witness, "why": verdict.why, "warning": warning or None}
        print_json({**asked, "mode": mode, **found})
    else:
        print("\n".join(_said(one, other, arguments, verdict, warning)))
    return 0 if verdict.holds else 1


def _verdict(one: Structure, other: Structure, arguments: argparse.Namespace) -> Verdict:
    if arguments.functional:
        for structure in (one, other):
            if not structure.top or not structure.bottom:
                raise ValueError("a loss that counts nothing on one side has no log-ratio to compare")
        return functional(one, other, arguments.relation)
    return entails(one, other) if arguments.relation == "entails" else equals(one, other)


def _warning(one: Loss, other: Loss) -> str:
    links = [f"{loss.name} ({loss.link})" for loss in (one, other) if loss.decreasing is False]
    if links:
        return f"the order of losses does not follow: the link of {' and '.join(links)} is not decreasing"
    return ""


def _said(one: Loss, other: Loss, asked: argparse.Namespace, verdict: Verdict, warning: str) -> Iterator[str]:
    says = (
        asked.relation if verdict.holds else {"entails": "does not entail", "equals": "does not equal"}[asked.relation]
    )
    yield f"{one.name} {says} {other.name}: {verdict.why}"
    witness = verdict.witness
    if witness and witness["row"] is not None:
        row = "  ".join(f"{name}={'T' if value else 'F'}" for name, value in witness["row"].items())
        marks = " and ".join(SIGNS[mark] for mark in witness["marks"])
        yield f"  row  {row}: marked {marks}"
    if witness and witness["probabilities"]:
        at = ", ".join(f"{name} = {value:.6g}" for name, value in witness["probabilities"].items())
        losses = " and ".join(f"{loss:.4f}" for loss in witness["losses"])
        yield f"  at   {at}: losses {losses} (logistic, beta 1)"
    if verdict.holds and one.link != other.link:
        yield f"  their links differ: {one.link} and {other.link}"
    if verdict.holds and asked.relation == "entails" and not warning:
        yield "  so its loss is nowhere the smaller one, for every decreasing link (not for the square of ipo)"
    if warning:
        yield f"warning: {warning}"


def run_count(arguments: argparse.Namespace) -> int:
    """Print how many there are."""
    found: dict[str, Any] = counts(2 if arguments.atoms is None else arguments.atoms)
    if arguments.atoms in (None, 2):
        found["usual"] = usual()
    if arguments.atoms is None:
        found["with_reference"] = counts(4)
    if arguments.json:
        print_json({key: _printable(value) for key, value in found.items()})
        return 0
    for title, numbers in ((None, found), ("with a reference, 4 atoms:", found.get("with_reference"))):
        if numbers:
            print("\n".join(([f"\n{title}"] if title else []) + list(_counted(numbers))))
    return 0


def _counted(numbers: Mapping[str, Any]) -> Iterator[str]:
    known = {name: value for name, value in numbers.items() if isinstance(value, int) and name in MEANINGS}
    written = {name: _large(value) for name, value in known.items()}
    width = max(map(len, written.values()))
    for name, text in written.items():
        yield f"{text:>{width}}  {MEANINGS[name]}"


def _large(value: int) -> str:
    return f"{value:,}" if value < 10**15 else f"about 10^{int(value.bit_length() * math.log10(2))}"


def _printable(value: Any) -> Any:
    """Return a number, or the text of its size where it has thousands of digits."""
    return _large(value) if isinstance(value, int) and value.bit_length() > 10_000 else value


def run_neighbours(arguments: argparse.Namespace) -> int:
    """Print the losses one step away."""
    loss = find(arguments.loss, arguments.condition, arguments.additive)
    structure = loss.needed()
    if structure.n > MOST_ATOMS_NEAR:
        raise ValueError(f"{loss.name} has {structure.n} atoms; neighbours are listed for up to {MOST_ATOMS_NEAR}")
    found = {name: near(structure, up=up) for name, up in (("tighter", False), ("looser", True))}
    if arguments.json:
        listed = {name: [_neighbour(structure, one) for one in ones] for name, ones in found.items()}
        print_json({"name": loss.name, **listed})
        return 0
    for name, ones in found.items():
        print(f"{name} than {loss.name}:" + ("" if ones else " none of its kind"))
        for one in ones:
            ratio = "" if one.name.startswith("log") else log_ratio(one.structure)
            print(f"  {one.name:22} {ratio}{_step(structure, one)}")
    return 0


def _neighbour(structure: Structure, one: Neighbour) -> dict[str, Any]:
    row = None if one.row is None else structure.named(one.row)
    return {"name": one.name, "row": row, "mark": one.mark, "rho": log_ratio(one.structure)}


def _step(structure: Structure, one: Neighbour) -> str:
    if one.row is None or one.mark is None:
        return ""
    row = " ".join(f"{name}={'T' if value else 'F'}" for name, value in structure.named(one.row).items())
    return f"   ({row}: {SIGNS[structure.mark(one.row)]} becomes {SIGNS[one.mark]})"


def run_meet(arguments: argparse.Namespace) -> int:
    """Print the loosest loss that is as tight as both."""
    return _combined(arguments, "meet")


def run_join(arguments: argparse.Namespace) -> int:
    """Print the tightest loss that is as loose as both."""
    return _combined(arguments, "join")


def _combined(arguments: argparse.Namespace, how: str) -> int:
    one, other = find(arguments.one), find(arguments.other)
    structure = getattr(one.needed(), how)(other.needed())
    place = name_in_landscape(structure)
    plain = place and (place[0] if place[1] == "sixteen" else reference_name(place[0]))
    found = shown(Loss(plain or f"{how} of {one.name} and {other.name}", structure.without_idle_atoms()))
    if arguments.json:
        print_json({"one": one.name, "other": other.name, "how": how, **found})
    else:
        print("\n".join(page(found)))
    return 0


def run_diff(arguments: argparse.Namespace) -> int:
    """Print the rows that two losses mark otherwise, and their log-ratios and slopes at two points."""
    one, other = find(arguments.one), find(arguments.other)
    mine, theirs = one.needed().beside(other.needed())
    rows = [
        {"row": row, "one": a, "other": b}
        for (row, a), (_, b) in zip(mine.rows(), theirs.rows(), strict=True)
        if a != b
    ]
    values = {name: [_at(s, point) for s in (mine, theirs)] for name, point in POINTS.items()}
    found = {"one": one.name, "other": other.name, "rows": rows, "rho": [log_ratio(mine), log_ratio(theirs)]}
    if arguments.json:
        print_json({**found, "points": values})
        return 0
    print("\n".join(_differences(one.name, other.name, found, values)))
    return 0


def _at(structure: Structure, point: tuple[float, float]) -> dict[str, float]:
    if any(atom.response not in ("w", "l") or atom.model not in ("M", "Ref") for atom in structure.atoms):
        return {}
    log = dict(zip(("w", "l"), map(math.log, point), strict=True))
    return pulls(structure, {Atom(a.model, a.response): log[a.response or ""] for a in structure.atoms})


def _differences(
    one: str, other: str, found: Mapping[str, Any], values: Mapping[str, list[dict[str, float]]]
) -> Iterator[str]:
    rows = found["rows"]
    yield f"{one} and {other} mark {len(rows)} rows otherwise" + (":" if rows else ": they are one loss")
    for row in rows:
        cells = "  ".join(f"{name}={'T' if value else 'F'}" for name, value in row["row"].items())
        yield f"  {cells}   {SIGNS[row['one']]} and {SIGNS[row['other']]}"
    yield from (f"{name}: ρ = {rho}" for name, rho in zip((one, other), found["rho"], strict=True))
    for point, pair in values.items():
        if all(pair):
            yield f"{point} (winner and loser; the reference has the same):"
            for name, numbers in zip((one, other), pair, strict=True):
                facts = ", ".join(f"{k.replace('d rho / d log', '∂ρ/∂log')} = {v:.4g}" for k, v in numbers.items())
                yield f"  {name}: {facts.replace('rho =', 'ρ =')}"
