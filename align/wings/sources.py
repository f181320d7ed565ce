"""Data of a recipe by its name: ``data: {name: mnist, size: 14}``, or ``data: {path: FOLDER}`` for one's own."""

import inspect
from importlib import import_module
from pathlib import Path
from typing import Any

from align.objectives.registry import did_you_mean
from align.recipe.convert import build, convert
from align.recipe.errors import RecipeError
from align.recipe.yaml_tree import Node
from align.wings import data as package
from align.wings.gallery import Splits

OWN = "images"


def names() -> list[str]:
    """Return the sources, sorted: a module of :mod:`align.wings.data` each."""
    folder = Path(inspect.getfile(package)).parent
    return sorted(file.stem for file in folder.glob("*.py") if not file.stem.startswith("_"))


def build_data(node: Node) -> tuple[str, Any]:
    """Return the name of a source and its settings.

    Raises:
        RecipeError: for an unknown source or setting.
    """
    if isinstance(node.value, str):
        node = Node({"name": node}, node.origin, implied=True)
    if not isinstance(node.value, dict) or not ({"name", "path"} & node.value.keys()):
        message = "expected name: SOURCE or path: FOLDER" + did_you_mean("", names())
        raise RecipeError(message, key="data", origin=node.origin)
    given = dict(node.value)
    named = given.pop("name", Node(OWN, node.origin))
    name = convert(named, str, "data.name")
    if name not in names():
        raise RecipeError(f"no data {name!r}" + did_you_mean(name, names()), key="data.name", origin=named.origin)
    settings = build(Node(given, node.origin), import_module(f"{package.__name__}.{name}").Settings, "data")
    return name, settings


def load_data(name: str, settings: Any) -> Splits:
    """Return the pictures or rows of a source.

    Raises:
        ValueError: a package or a folder is missing, or holds something else.
    """
    found: Splits = import_module(f"{package.__name__}.{name}").load(settings)
    return found
