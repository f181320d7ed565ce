"""What ``align train`` does with the recipe of a method of the wings."""

import argparse

from align.cli.recipe_arguments import recipe_path


def is_method(name: str) -> bool:
    """Whether a recipe names a method; a preference recipe never loads a wing."""
    from align.recipe.errors import RecipeError
    from align.recipe.tree import read_file

    try:
        root = read_file(recipe_path(name))
    except RecipeError:
        return False  # who reads it next says what is wrong
    return isinstance(root.value, dict) and "method" in root.value


def run_method_command(arguments: argparse.Namespace) -> int:
    """Run the method, or only print its configuration."""
    from align.wings.recipe import build_method_recipe, method_tree

    path = recipe_path(arguments.recipe)
    tree = method_tree(path, arguments.overrides)
    recipe = build_method_recipe(tree)
    if arguments.print_config:
        from align.recipe.show import settings_lines
        from align.wings.recipe import as_mapping

        print(settings_lines(as_mapping(recipe), tree))
        return 0
    from align.report.console import say
    from align.wings.run import run_method

    summary = run_method(recipe, name=path.stem)
    for name, value in summary["figures"].items():
        say(f"{name + ':':36} {value:.4g}")
    say(f"everything is in {summary['folder']}; align report {summary['folder']} makes a page of it")
    return 0


def refuse_method(name: str, command: str) -> None:
    """Refuse a method's recipe where only preference recipes work.

    Raises:
        ValueError: the recipe names a method.
    """
    if is_method(name):
        raise ValueError(
            f"{name} is the recipe of a method, and `align {command}` is for preference recipes; use align train "
            "(--print-config shows every setting), align data preview, or align claims"
        )
