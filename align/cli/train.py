"""``align train RECIPE [KEY=VALUE ...]``."""

import argparse
from typing import Any

from align.cli.recipe_arguments import add_recipe_arguments, recipe_of, recipe_path

KEY_FIGURES = (
    ("held-out accuracy", ("held_out", "eval_accuracy")),
    ("  of 'longer wins'", ("held_out", "eval_accuracy_longer_wins")),
    ("  on length-matched pairs", ("held_out", "eval_accuracy_length_matched")),
    ("held-out AUC", ("held_out", "eval_auc")),
    ("reward, base", ("generation", "reward", "base")),
    ("reward, aligned", ("generation", "reward", "aligned")),
    ("reward, difference", ("generation", "reward", "difference")),
    ("win rate", ("generation", "win_rate")),
    ("KL to the base, nats a completion", ("generation", "kl")),
    ("distinct-2, base and aligned", ("generation", "distinct_2")),
    ("repetition, base and aligned", ("generation", "repetition")),
    ("length in tokens, base and aligned", ("generation", "length_tokens")),
)
"""What the end of a run prints of its summary: label, and where it stands."""
SHARES = (("held_out", "eval_accuracy"), ("held_out", "eval_auc"))
"""Those whose interval stands beside them."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_recipe_arguments(parser)
    parser.add_argument("--print-config", action="store_true", help="print every setting with its origin and stop")


def run(arguments: argparse.Namespace) -> int:
    """Train, or only print the configuration."""
    from align.cli.method import is_method, run_method_command

    if is_method(arguments.recipe):
        return run_method_command(arguments)
    if arguments.print_config:
        from align.recipe.load import build_recipe, load_tree
        from align.recipe.show import print_config

        tree = load_tree(recipe_path(arguments.recipe), arguments.overrides)
        print(print_config(build_recipe(tree), tree))
        return 0
    from align.report.console import say, stage

    with stage("starting"):
        recipe, name = recipe_of(arguments)
        from align.trainers.run import run_recipe

    summary = run_recipe(recipe, name=name)
    for line in figures(summary):
        say(line)
    say(f"everything is in {summary['folder']}")
    return 0


def figures(summary: dict[str, Any]) -> list[str]:
    """Return the figures of a summary that people look for, a line each, with their intervals."""
    lines = []
    for label, path in KEY_FIGURES:
        value: Any = summary
        for key in path:
            value = value.get(key) if isinstance(value, dict) else None
        if path in SHARES and value is not None:
            held_out, key = summary["held_out"], path[-1]
            value = {"value": value, "low": held_out[f"{key}_low"], "high": held_out[f"{key}_high"]}
        if value is not None:
            lines.append(f"{label + ':':36} {_shown(value)}")
    return lines


def _shown(value: Any) -> str:
    if not isinstance(value, dict):
        return f"{value:.3f}"
    if "base" in value:
        return f"{value['base']:.3f}  {value['aligned']:.3f}"
    return f"{value['value']:.3f}  [{value['low']:.3f}, {value['high']:.3f}]"
