"""``align recipes ls | show NAME | cp NAME [TO]``."""

import argparse
import shutil
from pathlib import Path

import align
from align.objectives.registry import did_you_mean


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("ls", help="list the recipes")
    show = actions.add_parser("show", help="print a recipe")
    show.add_argument("name", metavar="NAME")
    copy = actions.add_parser("cp", help="copy a recipe, to change it")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("to", metavar="TO", nargs="?", default=".", help="a folder or a file; the folder you are in")


def run(arguments: argparse.Namespace) -> int:
    """List, show or copy."""
    if arguments.action == "ls":
        for name, path in shipped().items():
            print(f"{name:24} {first_line(path)}")
    elif arguments.action == "show":
        print(find_shipped(arguments.name).read_text(encoding="utf-8"), end="")
    else:
        print(copy_recipe(arguments.name, Path(arguments.to)))
    return 0


def shipped() -> dict[str, Path]:
    """Return the recipes that come with align, by name: their path below ``recipes/`` without the ending."""
    root = recipes_root()
    return {path.relative_to(root).with_suffix("").as_posix(): path for path in sorted(root.rglob("*.yaml"))}


def recipes_root() -> Path:
    """Return the folder of recipes: of the checkout align runs from, else of the installed package."""
    package = Path(align.__file__).parent
    checkout = package.parent / "recipes"
    return checkout if (package.parent / "pyproject.toml").is_file() else package / "shipped_recipes"


def find_shipped(name: str) -> Path:
    """Return the file of a recipe that comes with align.

    Raises:
        ValueError: if there is none of that name.
    """
    known = shipped()
    key = name.removesuffix(".yaml").removeprefix("recipes/")
    if key not in known:
        raise ValueError(f"no recipe {name!r}" + did_you_mean(key, list(known)))
    return known[key]


def first_line(path: Path) -> str:
    """Return a recipe's first comment line."""
    return path.read_text(encoding="utf-8").splitlines()[0].lstrip("# ")


def copy_recipe(name: str, to: Path) -> Path:
    """Copy a recipe and return where it went.

    Raises:
        ValueError: if a file is there already; nothing is overwritten.
    """
    source = find_shipped(name)
    target = to / source.name if to.is_dir() else to
    if target.exists():
        raise ValueError(f"{target} exists; choose another name")
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
    return target
