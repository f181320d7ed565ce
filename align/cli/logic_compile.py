"""``align logic compile``, ``decompile`` and ``zoo``: from formulas to losses, and back."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align.cli.logic import add_loss, add_sides, print_json
from align.logic.circuit import log_ratio
from align.logic.describe import in_signs, structure_facts
from align.logic.formula import untrainable_atoms
from align.logic.known import find, structure_of
from align.logic.landscape import name_in_landscape, reference_name
from align.logic.printing import infix
from align.logic.structure import Structure
from align.logic.zoo import table, write

LINKS = ("logistic", "squared", "hinge")
FORMATS = ("text", "recipe", "torch", "latex")
READ_AS = ("score", "loss", "ratio")


def add_arguments(name: str, parser: argparse.ArgumentParser) -> None:
    """Add a command's arguments."""
    if name == "compile":
        add_loss(parser)
        add_sides(parser)
        parser.add_argument("--link", choices=LINKS, default="logistic", help="f of the log-ratio; logistic by default")
        parser.add_argument("--beta", type=float, default=1.0, help="of the link; 1 by default")
        parser.add_argument("--margin", type=float, default=0.0, help="nats taken off the log-ratio; 0 by default")
        parser.add_argument("--reference", action="store_true", help="the reference form: minus the reference's margin")
        parser.add_argument("--length-normalised", action="store_true", help="probabilities a token, in the recipe")
        parser.add_argument("--format", choices=FORMATS, default="text", help="only that part; text has all")
    elif name == "decompile":
        what = "an expression of w, l, ref_w, ref_l; an objective's name; or FILE.py:FUNCTION"
        parser.add_argument("what", metavar="WHAT", help=what)
        parser.add_argument("settings", nargs="*", metavar="KEY=VALUE", help="settings of the objective or function")
        parser.add_argument("--as", dest="read_as", choices=READ_AS, help="what an expression is; told by its form")
    else:
        parser.add_argument("--write", action="store_true", help="trace all objectives anew and keep the table")


# ---- compile ---------------------------------------------------------------------------------------------------------


def run_compile(arguments: argparse.Namespace) -> int:
    """Print a loss as a recipe's objective, torch code and LaTeX."""
    from align.logic.source import latex_source, torch_source

    structure = find(arguments.loss, arguments.condition, arguments.additive).needed()
    structure = structure.reference_form() if arguments.reference else structure
    if not structure.top or not structure.bottom:
        raise ValueError("nothing is counted on one side: the log-ratio has no value")
    link, beta, margin = arguments.link, arguments.beta, arguments.margin
    if not (beta > 0 or (link == "hinge" and beta == 0)):
        raise ValueError(f"--beta must be greater than 0, got {beta}")
    found = {
        "rho": log_ratio(structure),
        "recipe": recipe(structure, arguments),
        "torch": torch_source(structure, link, beta, margin),
        "latex": latex_source(structure, link, margin),
    }
    if arguments.json:
        print_json({**structure_facts(structure), **found})
    elif arguments.format == "text":
        print(f"ρ = {found['rho']}\n\n{found['recipe']}\n\n{found['torch']}\n{found['latex']}")
    else:
        print(str(found[arguments.format]).rstrip("\n"))
    return 0


def recipe(structure: Structure, arguments: argparse.Namespace) -> str:
    """Return the loss as the section ``objective`` of a recipe, or a comment where training could not weigh an atom."""
    if unknown := untrainable_atoms(structure.atoms):
        return f"# no recipe: training knows no probability of {', '.join(unknown)}"
    settings: dict[str, Any] = {"formula": infix(structure.weakest_core().formula)}
    settings |= {"condition": infix(structure.condition()), "additive": infix(structure.additive())}
    settings |= {"link": arguments.link, "beta": arguments.beta, "margin": arguments.margin}
    settings["length_normalised"] = arguments.length_normalised
    usual = {"condition": "true", "additive": "false", "margin": 0.0, "length_normalised": False}
    kept = {key: value for key, value in settings.items() if usual.get(key) != value}
    return "objective:\n" + "\n".join(f"  {key}: {_yaml(value)}" for key, value in kept.items())


def _yaml(value: Any) -> str:
    if isinstance(value, str) and value not in LINKS:
        return json.dumps(value)
    return str(value).lower() if isinstance(value, bool) else str(value)


# ---- decompile -------------------------------------------------------------------------------------------------------


def run_decompile(arguments: argparse.Namespace) -> int:
    """Print the structure of a loss; exit code 1 where it has none."""
    entry = _entry(arguments)
    parts = [_part(part) for part in entry["parts"]]
    if arguments.json:
        print_json({**entry, "parts": parts})
    else:
        print("\n".join(_read(entry, parts)))
    return 1 if entry["outcome"] == "refused" else 0


def _entry(arguments: argparse.Namespace) -> dict[str, Any]:
    what, settings = arguments.what, _settings(arguments.settings)
    path, colon, function = what.rpartition(":")
    if colon and path.endswith(".py"):
        return _of_file(path, function, settings)
    from align.logic.expression import NAMES
    from align.objectives.registry import OBJECTIVES

    if what in OBJECTIVES or (what.isidentifier() and what not in NAMES):
        from align.logic.zoo import entry

        if arguments.read_as:
            raise ValueError("--as goes with an expression; an objective says itself what it is")
        return entry(OBJECTIVES.resolve(what), **settings)
    if settings:
        raise ValueError(f"{next(iter(settings))}: settings go with an objective or a function, not with an expression")
    return _of_expression(what, arguments.read_as)


def _settings(words: list[str]) -> dict[str, Any]:
    import yaml

    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key.isidentifier():
            raise ValueError(f"{word!r} is no setting; write KEY=VALUE, as in beta=0.5")
        found[key] = yaml.safe_load(value)
    return found


def _of_file(path: str, function: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    from align.logic.own_code import decompile_function
    from align.logic.zoo import plain

    found = decompile_function(Path(path), function, settings)
    return {"name": f"{path}:{function}", **plain(found)}


def _of_expression(text: str, read_as: str | None) -> dict[str, Any]:
    from align.logic.decompile import of_loss, of_score
    from align.logic.expression import kind_of, read_expression
    from align.logic.zoo import plain

    expression = read_expression(text)
    kind = read_as or kind_of(expression)
    if kind == "loss":
        found = of_loss(expression)
    else:
        import sympy

        found = of_score(expression if kind == "score" else sympy.log(expression))
    return {"name": text, "read_as": kind, **plain(found)}


def _part(part: Mapping[str, Any]) -> dict[str, Any]:
    if "top" not in part:
        return dict(part)
    structure = structure_of(part)
    facts = {key: value for key, value in structure_facts(structure).items() if key not in ("neighbours", "unread")}
    return {**part, **facts, "also": _also(structure)}


def _also(structure: Structure) -> list[str]:
    """Return the other structures that compile to the same log-ratio, of two atoms."""
    from align.logic.counting import same_function

    return [_sides(other) for other in same_function(structure)] if structure.n <= 2 else []


def _sides(structure: Structure) -> str:
    top, bottom = structure.sides()
    return f"{infix(top)} over {infix(bottom)}"


def _read(entry: Mapping[str, Any], parts: list[dict[str, Any]]) -> Iterator[str]:
    cores = [part for part in parts if part["role"] != "added"]
    yield f"{entry['name']}: {_outcome(entry['outcome'], len(cores))}" + (
        f" (read as a {entry['read_as']})" if "read_as" in entry else ""
    )
    yield from (f"  stripped: {text}" for text in entry["stripped"])
    for part in cores:
        yield ""
        if part["case"]:
            yield f"{part['case']}:"
        if "top" not in part:
            yield f"no structure: {part['refusal']}"
            continue
        yield from _facts(part)


def _facts(part: Mapping[str, Any]) -> Iterator[str]:
    name = _called(structure_of(part))
    yield f"  core P        {in_signs(part['core'])}" + (f"   ({name})" if name else "")
    yield f"  condition P_C {in_signs(part['condition'])}"
    yield f"  additive P_A  {in_signs(part['additive'])}"
    yield f"  ρ             {part['rho']}"
    yield from (f"  stripped      {fact}" for fact in part["facts"])
    if part["cores"] > 1:
        yield f"  not unique    {part['cores']} cores mean the same; shortest: {in_signs(part['simplest_core'])}"
    if part["also"]:
        yield f"  not unique    the same ratio, as a function, is {' and '.join(part['also'])}"


def _called(structure: Structure) -> str:
    place = name_in_landscape(structure)
    if place is None:
        return ""
    return place[0] if place[1] == "sixteen" else reference_name(place[0])


def _outcome(outcome: str, cores: int) -> str:
    return {
        "structure": "one structure",
        "sum": f"a sum of {cores} terms",
        "cases": f"{cores} cases",
        "refused": "no structure",
    }[outcome]


# ---- zoo -------------------------------------------------------------------------------------------------------------


def run_zoo(arguments: argparse.Namespace) -> int:
    """Print, or make anew, the table of all registered objectives."""
    if arguments.write:
        print(f"wrote {write()}")
        return 0
    entries = list(table().values())
    if arguments.json:
        print_json(entries)
        return 0
    width = max(len(entry["name"]) for entry in entries)
    for entry in entries:
        print(f"{entry['name']:{width}}  {_short(entry)}")
    return 0


def _short(entry: Mapping[str, Any]) -> str:
    cores = [part for part in entry["parts"] if part["role"] != "added"]
    if entry["outcome"] == "refused":
        return f"none: {cores[0]['refusal']}"
    said = [_in_short(part) for part in cores]
    joined = " + ".join(dict.fromkeys(said)) + (f" ({len(cores)} cases)" if entry["outcome"] == "cases" else "")
    return joined + (f"   [{'; '.join(entry['stripped'])}]" if entry["stripped"] else "")


def _in_short(part: Mapping[str, Any]) -> str:
    if "top" not in part:
        return "(no structure)"
    structure = structure_of(part)
    name = _called(structure) or log_ratio(structure)
    link = "its own link" if part["link"] == "its own" else part["link"]
    return f"{link} of {name}" + (", a token" if part["normalised"] else "")
