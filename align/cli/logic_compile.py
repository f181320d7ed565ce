"""``align logic compile``, ``decompile`` and ``zoo``: from formulas to losses, and back."""

import argparse
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from align.cli.logic import add_loss, add_sides, print_json
from align.logic.circuit import log_ratio
from align.logic.describe import in_signs, structure_facts
from align.logic.doctor import Setting
from align.logic.formula import untrainable_atoms
from align.logic.known import Loss, find, structure_of
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
        parser.add_argument("--link", choices=LINKS, help="f of the log-ratio; an objective's own, else logistic")
        parser.add_argument("--beta", type=float, help="of the link; an objective's own, else 1")
        parser.add_argument("--margin", type=float, help="nats taken off the log-ratio; an objective's own, else 0")
        parser.add_argument("--reference", action="store_true", help="the reference form: minus the reference's margin")
        parser.add_argument(
            "--length-normalised", action="store_true", help="probabilities a token; an objective's own, else no"
        )
        parser.add_argument("--format", choices=FORMATS, help="only that part; text, the default, has all")
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

    if arguments.json and arguments.format:
        raise ValueError("--json has all parts: leave --format out")
    loss = find(arguments.loss, arguments.condition, arguments.additive)
    structure = loss.needed().reference_form() if arguments.reference else loss.needed()
    if not structure.top or not structure.bottom:
        raise ValueError("nothing is counted on one side: the log-ratio has no value")
    settings, left_out = _settings_of(loss, arguments)
    link, beta, margin = settings["link"], settings["beta"], settings["margin"]
    Setting.of(link, beta, margin)
    found = {
        "rho": log_ratio(structure),
        "recipe": "\n".join([recipe(structure, settings), *(f"# left out: {text}" for text in left_out)]),
        "torch": torch_source(structure, link, beta, margin),
        "latex": latex_source(structure, link, margin),
    }
    if arguments.json:
        print_json({**structure_facts(structure), **found, "settings": settings, "left_out": left_out})
    elif arguments.format in (None, "text"):
        print(f"ρ = {found['rho']}\n\n{found['recipe']}\n\n{found['torch']}\n{found['latex']}")
    else:
        print(str(found[arguments.format]).rstrip("\n"))
    return 0


def _settings_of(loss: Loss, arguments: argparse.Namespace) -> tuple[dict[str, Any], list[str]]:
    """Return the settings of the compiled loss, an objective's own where none are given, and what they leave out.

    Raises:
        ValueError: if an objective's link is none of ours, and none is given.
    """
    part: Mapping[str, Any] = loss.part or {}
    given = arguments.link, arguments.beta, arguments.margin
    own: tuple[str, float, float] = ("logistic", 1.0, 0.0)
    left_out: list[str] = []
    if part and given == (None, None, None):
        own, left_out = _own(loss, part)
    link, beta, margin = (mine if value is None else value for value, mine in zip(given, own, strict=True))
    normalised = arguments.length_normalised or bool(part.get("normalised"))
    return {"link": link, "beta": beta, "margin": margin, "length_normalised": normalised}, left_out


def _own(loss: Loss, part: Mapping[str, Any]) -> tuple[tuple[str, float, float], list[str]]:
    """Return link, beta and margin of an objective's part, and what no setting of a formula's loss can say."""
    link, left_out = part["link"], list((loss.entry or {}).get("stripped", ()))
    try:
        scale, margin, weight = (float(part[key]) for key in ("scale", "margin", "weight"))
    except ValueError:
        left_out.append(f"margin {part['margin']}, which is not one number for all pairs")
        scale, margin, weight = float(part["scale"]), 0.0, float(part["weight"])
    if link not in LINKS:
        raise ValueError(f"{loss.name} has the link {link!r}, which no formula's loss has: say another with --link")
    factor = {"logistic": weight, "hinge": weight * scale, "squared": weight * scale**2}[link]
    if factor != 1:
        left_out.append(f"a weight of {factor:g}: in a list of objectives, weight: {factor:g}")
    if link == "logistic":
        return (link, scale, margin / scale), left_out
    if link == "hinge":
        return (link, max(margin / scale, 0.0), min(margin / scale, 0.0)), left_out
    return ((link, 0.5 * scale / margin, 0.0) if margin > 0 else (link, 0.5, margin / scale - 1.0)), left_out


def recipe(structure: Structure, given: Mapping[str, Any]) -> str:
    """Return the loss as the section ``objective`` of a recipe, or a comment where training could not weigh an atom."""
    if unknown := untrainable_atoms(structure.atoms):
        return f"# no recipe: training knows no probability of {', '.join(unknown)}"
    if not any(atom.model == "M" for atom in structure.atoms):
        return "# no recipe: it depends on no probability of the policy, so that nothing would be trained"
    settings: dict[str, Any] = {"formula": infix(structure.weakest_core().formula)}
    settings |= {"condition": infix(structure.condition()), "additive": infix(structure.additive()), **given}
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
    what, settings = arguments.what.strip(), _settings(arguments.settings)
    path, colon, function = what.rpartition(":")
    if colon and path.endswith(".py"):
        if arguments.read_as:
            raise ValueError("--as goes with an expression; what a function returns is told by its form")
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
        try:
            found[key] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise ValueError(f"{word}: {value!r} is no value of YAML") from error
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
    read = plain(found)
    if kind != "loss":
        for part in read["parts"]:
            part["facts"][0] = "link: none given, taken to be logistic"
    return {"name": text, "read_as": kind, **read}


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
    name = "" if any(" weighs " in fact for fact in part["facts"]) else _called(structure_of(part))
    yield f"  core P        {in_signs(part['core'])}" + (f"   ({name})" if name else "")
    yield f"  condition P_C {in_signs(part['condition'])}"
    yield f"  additive P_A  {in_signs(part['additive'])}"
    yield f"  ρ             {part['rho']}"
    yield from (f"  stripped      {fact}" for fact in part["facts"])
    if part["cores"] > 1:
        how = "shortest" if part["exact"] else "a short one"
        yield f"  not unique    {part['cores']} cores mean the same; {how}: {in_signs(part['simplest_core'])}"
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
