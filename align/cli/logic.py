"""``align logic COMMAND``: what losses mean, how they compare, and losses from formulas."""

import argparse
import json
import math
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

LOSS = "a loss: an objective (dpo), a node of the landscape (cCPO, cCPO-ref), chain(4), or a formula in quotes"
COMMANDS: dict[str, tuple[str, str, str]] = {
    "show": (
        "logic_show",
        "what a loss means: formulas, marks, neighbours, what to expect",
        'show dpo\nshow "M(l) -> M(w)"',
    ),
    "table": ("logic_show", "the truth table, with weights", "table CPO --at M(w)=0.3,M(l)=0.2"),
    "compile": (
        "logic_compile",
        "a formula as a loss: recipe, torch code, LaTeX",
        'compile "M(l) -> M(w)" --condition "M(w) | M(l)"\ncompile cCPO --format torch',
    ),
    "decompile": (
        "logic_compile",
        "the structure of an expression, an objective or a Python function",
        'decompile "log(w*(1-l)/(l*(1-w)))"\ndecompile simpo gamma=0.5\ndecompile losses.py:my_loss',
    ),
    "check": (
        "logic_order",
        "whether one loss entails, or equals, another",
        "check CPO entails cCPO\ncheck dpo equals ipo",
    ),
    "landscape": (
        "logic_landscape",
        "losses in the order of entailment, as text, picture or page",
        "landscape\nlandscape --reference --out landscape.svg\nlandscape --html landscape.html",
    ),
    "count": ("logic_order", "how many structures and losses there are", "count\ncount --atoms 4"),
    "neighbours": ("logic_order", "the losses one step tighter and one step looser", "neighbours CPO"),
    "meet": ("logic_order", "the loosest loss that is as tight as both", "meet ORPO CPO"),
    "join": ("logic_order", "the tightest loss that is as loose as both", "join ORPO CPO"),
    "diff": ("logic_order", "the rows that two losses mark otherwise, and what that does", "diff dpo cCPO-ref"),
    "doctor": (
        "logic_doctor",
        "what a loss does on log-probabilities of yours, or of a run",
        "doctor unCPO --logps pairs.jsonl\ndoctor dpo --logps runs/quickstart",
    ),
    "zoo": ("logic_compile", "what every registered objective means", "zoo\nzoo --json"),
}
"""Command: the module that adds its arguments and runs it, what it is for, examples."""

EXIT_CODES = "exit code: 0 holds or done, 1 does not hold (with a witness), 2 a mistake in what was asked"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the commands; each file is imported when its command is given."""
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.epilog = EXIT_CODES
    commands = parser.add_subparsers(dest="action", metavar="COMMAND", required=True)
    for name, (module, purpose, examples) in COMMANDS.items():
        lines = "\n".join(f"  align logic {example}" for example in examples.splitlines())
        sub = commands.add_parser(
            name,
            help=purpose,
            description=purpose[0].upper() + purpose[1:] + ".",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            epilog=f"examples:\n{lines}\n\n{EXIT_CODES}",
        )
        sub.add_argument("--json", action="store_true", help="print it as JSON")
        import_module(f"align.cli.{module}").add_arguments(name, sub)


def run(arguments: argparse.Namespace) -> int:
    """Run a command."""
    module = import_module(f"align.cli.{COMMANDS[arguments.action][0]}")
    command: Callable[[argparse.Namespace], int] = getattr(module, f"run_{arguments.action}")
    try:
        return command(arguments)
    except RecursionError:
        raise ValueError("what was given is nested too deeply to be read") from None


def add_loss(parser: argparse.ArgumentParser, name: str = "loss", help_text: str = LOSS) -> None:
    """Add the argument of a loss."""
    parser.add_argument(name, metavar=name.upper(), help=help_text)


def add_sides(parser: argparse.ArgumentParser) -> None:
    """Add the condition and the additive formula that go with a formula."""
    parser.add_argument("--condition", metavar="FORMULA", help="P_C: only its rows count (beside a formula)")
    parser.add_argument("--additive", metavar="FORMULA", help="P_A: its rows count on both sides (beside a formula)")


def print_json(found: Any) -> None:
    """Print data as JSON, with the signs of other scripts as they are, and null for a number that is not finite."""
    print(json.dumps(_finite(found), indent=2, ensure_ascii=False, allow_nan=False))


def _finite(found: Any) -> Any:
    if isinstance(found, Mapping):
        return {key: _finite(value) for key, value in found.items()}
    if isinstance(found, list | tuple):
        return [_finite(value) for value in found]
    return None if isinstance(found, float) and not math.isfinite(found) else found
