"""``align claims ls | run NAME | show NAME``."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from align.cli.recipe_arguments import recipe_path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    ls = actions.add_parser("ls", help="list the claims with their verdicts")
    run = actions.add_parser("run", help="run a method and its baselines over seeds, and say what came out")
    show = actions.add_parser("show", help="show what came out")
    for action in (run, show):
        action.add_argument("name", metavar="NAME", help="a method, or a recipe with a claim")
    for action in (ls, run, show):
        action.add_argument("--json", action="store_true", help="print JSON")
        action.add_argument(
            "--out",
            metavar="DIR",
            type=Path,
            default=None,
            help="folder of results (docs/results, and claims for recipes of your own)",
        )


def run(arguments: argparse.Namespace) -> int:
    """List, run or show."""
    from align.wings.claims import (
        claim_of,
        is_fresh,
        is_of_same_code,
        listed,
        read_result,
        results_folder,
        run_claim,
        told,
    )

    if arguments.action == "ls":
        lines = listed(claimed(), arguments.out or results_folder())
        print(json.dumps(lines, indent=2) if arguments.json else table(lines))
        return 0
    recipe = claim_recipe(arguments.name)
    shipped = recipe in claimed().values()
    folder = arguments.out or (results_folder() if shipped else Path("claims"))
    if arguments.action == "run":
        called = recipe.stem if shipped else arguments.name
        found: dict[str, Any] | None = run_claim(recipe, folder, _tell, called=called)
    else:
        found = read_result(recipe.stem, folder)
    if found is None:
        raise ValueError(f"the claim {recipe.stem!r} was not run: align claims run {arguments.name}")
    now = {"fresh": is_fresh(found, recipe), "same_code": is_of_same_code(found, recipe)}
    print(json.dumps({**found, **now}, indent=2) if arguments.json else told(found, claim_of(recipe), **now))
    return 0


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def claimed() -> dict[str, Path]:
    """Return the recipes that come with align and have a claim, by name."""
    from align.cli.recipes import shipped
    from align.recipe.tree import read_file
    from align.wings.method import WINGS

    wings = {name: path for name, path in shipped().items() if name.partition("/")[0] in WINGS}
    return {name: path for name, path in wings.items() if "claim" in _sections(read_file(path))}


def _sections(root: Any) -> dict[str, Any]:
    return root.value if isinstance(root.value, dict) else {}


def claim_recipe(name: str) -> Path:
    """Return the recipe of a claim: a file, a recipe's name, or a method's.

    Raises:
        ValueError: there is none.
    """
    from align.objectives.registry import did_you_mean

    path = Path(name)
    if path.suffix or "/" in name:
        return recipe_path(name)
    known = {path.stem: path for path in claimed().values()}
    if name not in known:
        raise ValueError(f"no claim {name!r}" + did_you_mean(name, list(known)))
    return known[name]


def table(lines: list[dict[str, Any]]) -> str:
    """Return the list for a terminal."""
    head = f"{'claim':16} {'wing':12} {'verdict':14} {'effect':28} {'seeds':>5} {'s':>5}  {'fresh':5}  paper"
    rows = [head]
    for line in lines:
        effect = ""
        if line["effect"] is not None:
            low, high = line["interval"]
            effect = f"{line['effect']:+.3g} [{low:+.3g}, {high:+.3g}]"
        seconds = "" if line["seconds"] is None else f"{line['seconds']:.0f}"
        fresh = ""
        if line["verdict"] != "not run":
            fresh = "no" if not line["fresh"] else "yes" if line["same_code"] else "code"
        rows.append(
            f"{line['name']:16} {line['wing']:12} {line['verdict']:14} {effect:28} {line['seeds'] or '':>5} "
            f"{seconds:>5}  {fresh:5}  {line['paper']}"
        )
    return "\n".join(rows)
