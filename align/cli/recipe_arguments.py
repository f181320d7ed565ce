"""Arguments that every command with a recipe has."""

import argparse
from pathlib import Path

from align.recipe.load import load_recipe
from align.recipe.schema import Recipe


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """Add RECIPE and overrides."""
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file, or the name of a recipe that comes with align")
    parser.add_argument(
        "overrides",
        metavar="KEY=VALUE",
        nargs="*",
        help="settings that replace the recipe's, such as trainer.max_steps=40",
    )


def recipe_of(arguments: argparse.Namespace) -> tuple[Recipe, str]:
    """Load the recipe that was named, and return it with a short name for its run folder."""
    path = recipe_path(arguments.recipe)
    return load_recipe(path, arguments.overrides), path.stem


def recipe_path(name: str) -> Path:
    """Return a file as it is, and a bare name as the recipe of that name which comes with align."""
    from align.cli.recipes import find_shipped

    path = Path(name)
    return path if path.exists() or path.suffix else find_shipped(name)
