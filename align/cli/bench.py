"""``align bench RECIPE [KEY=VALUE ...]``: a recipe for a few steps, timed."""

import argparse
import contextlib
import json
import sys

from align.cli.method import refuse_method
from align.cli.recipe_arguments import add_recipe_arguments, recipe_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--steps", type=int, default=10, metavar="N", help="optimiser steps that count (default: 10)")
    parser.add_argument("--alone", action="store_true", help="leave out the same steps with speed: off beside it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")


def run(arguments: argparse.Namespace) -> int:
    """Measure; no run folder is made, and no checkpoint kept."""
    from align.report.console import stage

    if arguments.steps < 1:
        raise ValueError(f"--steps must be at least 1, got {arguments.steps}")
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        with stage("starting"):
            refuse_method(arguments.recipe, "bench")
            recipe, _ = recipe_of(arguments)
            from align.trainers.bench import bench_recipe, say_figures
        found = bench_recipe(recipe, steps=arguments.steps, compare=not arguments.alone)
    if arguments.json:
        print(json.dumps(found, indent=2))
    else:
        say_figures(found)
    return 0
