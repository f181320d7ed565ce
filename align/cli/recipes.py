"""``align recipes ls | show NAME | cp NAME [TO] | convert FILE``."""

import argparse
import shutil
import sys
from pathlib import Path

import align
from align.objectives.registry import did_you_mean

PROJECTS = ("trl", "alignment-handbook", "axolotl")
"""Other projects whose recipes ``convert`` reads."""
METHODS = ("dpo", "kto", "cpo", "orpo", "simpo")
"""Trainers of TRL's, and of SimPO's authors, that a recipe may be for."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the command's arguments."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("ls", help="list the recipes")
    show = actions.add_parser("show", help="print a recipe")
    show.add_argument("name", metavar="NAME")
    copy = actions.add_parser("cp", help="copy a recipe, to change it")
    copy.add_argument("name", metavar="NAME")
    copy.add_argument("to", metavar="TO", nargs="?", default=".", help="a folder or a file; the folder you are in")
    convert = actions.add_parser(
        "convert",
        help="bring a recipe of TRL, alignment-handbook or Axolotl over",
        description="Print a recipe of another project as one of align's. What would be trained differently is marked "
        "DECIDE, in the recipe and on stderr.",
    )
    convert.add_argument("file", metavar="FILE", help="a YAML file of another project")
    convert.add_argument(
        "--from", dest="project", choices=PROJECTS, help="its project; found out by its keys if absent"
    )
    convert.add_argument(
        "--method",
        choices=METHODS,
        help="the trainer that a file of TRL's form is for; found out by its keys if absent, dpo where none says",
    )
    convert.add_argument("--to", metavar="RECIPE.yaml", type=Path, help="write it there; never overwritten")


def run(arguments: argparse.Namespace) -> int:
    """List, show, copy or convert."""
    if arguments.action == "ls":
        for name, path in shipped().items():
            print(f"{name:24} {first_line(path)}")
    elif arguments.action == "show":
        print(find_shipped(arguments.name).read_text(encoding="utf-8"), end="")
    elif arguments.action == "cp":
        print(copy_recipe(arguments.name, Path(arguments.to)))
    else:
        convert_recipe(arguments.file, arguments.project, arguments.to, arguments.method)
    return 0


def convert_recipe(file: str, project: str | None, to: Path | None, method: str | None = None) -> None:
    """Print another project's recipe as one of ours, or write it; say on stderr what needs a decision.

    Raises:
        ValueError: if there is a file at ``to`` already, or the recipe cannot be brought over.
    """
    if to is not None and to.exists():
        raise ValueError(f"{to} exists; choose another name")
    from align.recipe.foreign.bring_over import bring_over

    brought = bring_over(file, project, method)
    if to is None:
        print(brought.text, end="")
    else:
        to.parent.mkdir(parents=True, exist_ok=True)
        to.write_text(brought.text, encoding="utf-8")
    where = "" if to is None else f", written to {to}"
    title, left = brought.dialect.title, brought.left
    print(f"a recipe of {title}{where}; keys left out that change nothing: {left}", file=sys.stderr)
    if brought.unsaid:
        others = ", ".join(METHODS[1:])
        print(
            f"nothing in it says which trainer it is for: read as DPO; --method says otherwise ({others})",
            file=sys.stderr,
        )
    if brought.decisions:
        print(f"to decide, each a comment DECIDE of the recipe: {len(brought.decisions)}", file=sys.stderr)
    for decision in brought.decisions:
        print(f"  {decision}", file=sys.stderr)


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
