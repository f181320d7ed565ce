"""``align validate RECIPE [KEY=VALUE ...]``."""

import argparse
import contextlib
import json
import sys

from align.cli.recipe_arguments import add_recipe_arguments, recipe_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a page")
    parser.add_argument(
        "--processes",
        type=int,
        metavar="N",
        help="how many processes will train together (default: as launched, else 1)",
    )


def run(arguments: argparse.Namespace) -> int:
    """Look at everything a run would meet; load no weights. Warnings leave the exit code at 0."""
    from align.report.console import stage
    from align.report.validation_page import page

    # Clocks and bars stay out of what another program reads.
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        with stage("starting"):
            recipe, name = recipe_of(arguments)
            from align.trainers.validation import validate

        facts = validate(recipe, name, processes=arguments.processes)
    print(json.dumps(facts, indent=2) if arguments.json else page(facts))
    return 0
