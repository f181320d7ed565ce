"""``align objectives ls | show NAME``: what each loss is, needs, pulls at and becomes."""

import argparse
import json
from typing import Any


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    listing = actions.add_parser("ls", help="list the objectives")
    show = actions.add_parser("show", help="print what is known of an objective")
    show.add_argument("name", metavar="NAME", help="its name, or an alias such as TRL's 'sigmoid'")
    for action in (listing, show):
        action.add_argument("--json", action="store_true", help="print it as JSON")


def run(arguments: argparse.Namespace) -> int:
    """List, or show one."""
    from align.objectives.describe import details, summary
    from align.objectives.registry import OBJECTIVES

    if arguments.action == "ls":
        known = [summary(name) for name in OBJECTIVES]
        print(json.dumps(known, indent=2, ensure_ascii=False) if arguments.json else _listing(known))
    else:
        found = details(arguments.name)
        print(json.dumps(found, indent=2, ensure_ascii=False) if arguments.json else _page(found))
    return 0


def _listing(known: list[dict[str, Any]]) -> str:
    """Return a line for each objective: name, data, needs, title."""
    head = ("name", "data", "needs", "what it is")
    rows = [(e["name"], e["data"], ", ".join(e["needs"]) or "nothing", e["title"]) for e in known]
    widths = [max(len(row[i]) for row in (head, *rows)) for i in range(3)]
    return "\n".join(
        "  ".join([*(f"{c:{w}}" for c, w in zip(row, widths, strict=False)), row[3]]) for row in (head, *rows)
    )


def _page(found: dict[str, Any]) -> str:
    """Return all that is known of an objective, for people."""
    from align.objectives.describe import CHECKED, formula_lines

    also = f" (also {', '.join(found['aliases'])})" if found["aliases"] else ""
    formulas = formula_lines(found)
    width = max(len(name) for name, _ in formulas)
    blocks = [
        [f"{found['name']}: {found['title']}{also}"],
        [f"{name:{width}}  {formula}" for name, formula in formulas],
        [found["does"]],
        ["settings", *(f"  {s['name']} = {s['default']}: {s['meaning']}" for s in found["settings"])]
        if found["settings"]
        else ["It has no settings."],
        _facts(found),
        [f"source: {found['source']}", f"formula: {CHECKED[found['checked']]}"],
        [f"departs: {found['departs']}"] if found["departs"] else [],
        [f"diverges: {found['diverges']}"] if found["diverges"] else [],
        [f"limit: {limit}" for limit in found["limits"]],
        [SYMBOLS],
    ]
    return "\n\n".join("\n".join(block) for block in blocks if block)


SYMBOLS = (
    "a, b: log-probability of chosen and rejected, a0, b0 under the reference; h = a - a0, Δ = h_w - h_l, m = a - b;\n"
    "n: length in tokens; a bar is a mean over tokens; d_w, d_l: pull on the chosen, push on the rejected (-∂loss/∂a, "
    "∂loss/∂b)"
)
"""What the letters of formulas stand for; docs/objectives.md has all of them."""


def _facts(found: dict[str, Any]) -> list[str]:
    needs = ", ".join(found["needs"]) or "nothing beside the policy's log-probabilities"
    facts = [f"needs: {needs}", f"data: {found['data']}"]
    if found["trains_unpaired"]:
        facts.append("trains on single completions too: data.unpaired=true")
    if found["couples_pairs"]:
        facts.append("the loss of a pair depends on the other pairs of its batch")
    return facts
