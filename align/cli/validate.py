"""``align validate RECIPE [KEY=VALUE ...]``."""

import argparse
import contextlib
import json
import sys
from dataclasses import fields

from align.cli.method import refuse_method
from align.cli.recipe_arguments import add_recipe_arguments, recipe_of
from align.models.gpus import OPTIONS, Gpus

_GPU_OPTIONS = (
    ("count", int, "N", "plan the run on N GPUs, all nodes together: memory and time under each engine"),
    ("memory", float, "GIB", "memory of a GPU"),
    ("tflops", float, "TFLOPS", "peak of a GPU in bfloat16, without sparsity"),
    ("utilisation", float, "SHARE", "share of the peak that computing reaches"),
    ("per_node", int, "N", "GPUs of a node"),
    ("node_bandwidth", float, "GB/S", "what a GPU receives from others of its node"),
    ("network_bandwidth", float, "GB/S", "what a node receives for each of its GPUs"),
)


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
    planned = parser.add_argument_group("GPUs elsewhere", "estimates for GPUs that need not be here (docs/scaling.md)")
    defaults = {each.name: each.default for each in fields(Gpus)}
    for name, kind, unit, text in _GPU_OPTIONS:
        told = text if name == "count" else f"{text} (default: {defaults[name]:g})"
        planned.add_argument(OPTIONS[name], dest=f"gpus_{name}", type=kind, metavar=unit, help=told)


def run(arguments: argparse.Namespace) -> int:
    """Look at everything a run would meet; load no weights. Warnings leave the exit code at 0."""
    from align.report.console import stage
    from align.report.validation_page import page

    gpus = Gpus.of({name: getattr(arguments, f"gpus_{name}") for name in OPTIONS})
    # Clocks and bars stay out of what another program reads.
    with contextlib.redirect_stdout(sys.stderr) if arguments.json else contextlib.nullcontext():
        with stage("starting"):
            refuse_method(arguments.recipe, "validate")
            recipe, name = recipe_of(arguments)
            from align.trainers.validation import validate

        words = [arguments.recipe, *arguments.overrides]
        facts = validate(recipe, name, processes=arguments.processes, gpus=gpus, words=words)
    print(json.dumps(facts, indent=2) if arguments.json else page(facts))
    return 0
