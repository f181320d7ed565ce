"""``align validate RECIPE [KEY=VALUE ...]``."""

import argparse

from align.cli.recipe_arguments import add_recipe_arguments, recipe_of


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    add_recipe_arguments(parser)


def run(arguments: argparse.Namespace) -> int:
    """Check the recipe, its files and its parts; load no weights."""
    from align.trainers.check import check

    recipe, name = recipe_of(arguments)
    for line in check(recipe):
        print(line)
    print(f"{name}: the recipe is valid")
    return 0
