"""``align precompute RECIPE [KEY=VALUE ...]``: the reference's log-probabilities, before any training."""

import argparse
import contextlib
import json
import sys

from align.cli.method import refuse_method
from align.cli.recipe_arguments import add_recipe_arguments, recipe_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print what was done as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Compute what is missing, and say where it is."""
    from align.report.console import say, stage

    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        with stage("starting"):
            refuse_method(arguments.recipe, "precompute")
            recipe, _ = recipe_of(arguments)
            from align.trainers.run import precompute_recipe
        found = precompute_recipe(recipe)
    if arguments.json:
        print(json.dumps(found, indent=2))
        return 0
    rows = ", ".join(f"{count:,} {name}" for name, count in found["rows"].items())
    say(f"reference: {found['reference']}")
    say(f"rows: {rows}; {found['computed']:,} sequences computed, {found['kept']:,} are kept of this reference")
    say(f"they are in {found['folder']}; any run with this reference and these rows reads them")
    return 0
