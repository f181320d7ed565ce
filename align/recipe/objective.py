"""The section ``objective``: a registered loss by its name, or a user's own from a Python file."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import is_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from align.objectives.base import PairObjective
from align.objectives.custom import load_objective, load_python_file
from align.objectives.registry import OBJECTIVES
from align.recipe.convert import blaming, build, convert
from align.recipe.errors import MissingSettingError, RecipeError
from align.recipe.yaml_tree import Node, join

KEY = "objective"


def build_objective(node: Node, missing_from: Node) -> tuple[PairObjective, Mapping[str, Any]]:
    """Make the objective of a recipe.

    Args:
        node: the section; its value is None where the recipe has none.
        missing_from: where a missing section is reported.

    Returns:
        The objective, and ``file`` and ``name`` of one that comes from a Python file; empty for a registered one.

    Raises:
        RecipeError: for an unknown or missing name, a file that does not load, or settings the objective refuses.
    """
    if node.value is None:
        raise MissingSettingError(KEY, hint=", for example {name: dpo, beta: 0.1}", origin=missing_from.origin)
    if isinstance(node.value, list):
        raise RecipeError("a list of objectives cannot be trained yet; give one", key=KEY, origin=node.origin)
    if not isinstance(node.value, dict):
        raise RecipeError("expected a name, or a mapping with a name", key=KEY, origin=node.origin)
    name = _text(node.value, "name", node)
    settings = Node({key: child for key, child in node.value.items() if key not in ("name", "file")}, node.origin)
    if "file" not in node.value:
        at_name, key = (node, KEY) if node.implied else (node.value["name"], join(KEY, "name"))
        return _registered(name, settings, at_name, key), MappingProxyType({})
    file = str(Path(_text(node.value, "file", node)).expanduser().absolute())
    spec = MappingProxyType({"file": file, "name": name})
    return _own(file, name, settings, node.value), spec


def _text(section: dict[str, Node], part: str, node: Node) -> str:
    if part not in section:
        raise MissingSettingError(join(KEY, part), origin=node.origin)
    return str(convert(section[part], str, join(KEY, part)))


def _registered(name: str, settings: Node, at_name: Node, key: str) -> PairObjective:
    if name not in OBJECTIVES:
        with blaming(Node(name, at_name.origin), key):
            return OBJECTIVES.build(name)  # says which names there are
    objective: PairObjective = build(settings, OBJECTIVES[name], KEY, owner=f"objective {name!r}")
    return objective


def _own(file: str, name: str, settings: Node, section: dict[str, Node]) -> PairObjective:
    with blaming(section["file"], join(KEY, "file")):
        target = getattr(load_python_file(file), name, None)
    if inspect.isfunction(target):
        given = _arguments(target, settings)
        with blaming(settings, KEY):
            return load_objective(file, name, given)
    if _is_settings_class(target):
        objective: PairObjective = build(settings, target, KEY, owner=f"objective {name!r}")
        return objective
    with blaming(section["name"], join(KEY, "name")):
        return load_objective(file, name, {})  # says what the file does hold


def _is_settings_class(target: object) -> bool:
    return isinstance(target, type) and issubclass(target, PairObjective) and is_dataclass(target)


def _arguments(function: Callable[..., Any], settings: Node) -> dict[str, Any]:
    """Return the settings by the function's annotations, where it has any."""
    assert isinstance(settings.value, dict)
    hints = _hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if required and name not in settings.value and name not in ("policy", "reference"):
            raise MissingSettingError(join(KEY, name), origin=settings.origin)
    return {name: convert(child, hints.get(name, Any), join(KEY, name)) for name, child in settings.value.items()}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except NameError:  # an annotation that its module imports for type checkers only
        return {}
