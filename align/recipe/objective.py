"""The section ``objective``: a registered loss, one of a formula, one from a Python file, or a weighted list."""

import inspect
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass
from difflib import get_close_matches
from pathlib import Path
from types import MappingProxyType
from typing import Any, get_type_hints

from align.logic.compiled import FormulaObjective
from align.objectives.base import Objective
from align.objectives.custom import load_objective, load_python_file
from align.objectives.mixture import Mixture, Part, Smoothed
from align.objectives.registry import OBJECTIVES
from align.recipe.convert import blaming, build, convert
from align.recipe.errors import MissingSettingError, RecipeError
from align.recipe.yaml_tree import Node, join

KEY = "objective"


def build_objective(node: Node, missing_from: Node) -> tuple[Objective, tuple[Mapping[str, Any], ...]]:
    """Make the objective of a recipe.

    Args:
        node: the section: a mapping with a name and settings, or a list of such mappings, each with a ``weight``; its
            value is None where the recipe has none.
        missing_from: where a missing section is reported.

    Returns:
        The objective, and for each of its parts ``file`` and ``name`` of one that comes from a Python file; empty for a
        registered one.

    Raises:
        RecipeError: for an unknown or missing name, a file that does not load, or settings the objective refuses.
    """
    if node.value is None:
        raise MissingSettingError(KEY, hint=", for example {name: dpo, beta: 0.1}", origin=missing_from.origin)
    if not isinstance(node.value, list):
        objective, spec = _one(node, KEY)
        return objective, (spec,)
    if not node.value:
        raise RecipeError("an empty list of objectives; give one at least", key=KEY, origin=node.origin)
    built = [_part(item, join(KEY, index)) for index, item in enumerate(node.value)]
    return Mixture(parts=tuple(part for part, _ in built)), tuple(spec for _, spec in built)


def _part(node: Node, key: str) -> tuple[Part, Mapping[str, Any]]:
    weight, rest = 1.0, node
    if isinstance(node.value, dict) and "weight" in node.value:
        weight = convert(node.value["weight"], float, join(key, "weight"))
        rest = Node({n: child for n, child in node.value.items() if n != "weight"}, node.origin, node.implied)
    objective, spec = _one(rest, key)
    with blaming(node, key):
        return Part(objective=objective, weight=weight), spec


def _one(node: Node, key: str) -> tuple[Objective, Mapping[str, Any]]:
    """Make one objective; a ``label_smoothing`` that is no setting of its own is laid around it."""
    if not isinstance(node.value, dict):
        raise RecipeError("expected a name, or a mapping with a name", key=key, origin=node.origin)
    of_formula = "formula" in node.value and "name" not in node.value
    name = "formula" if of_formula else _text(node.value, "name", node, key)
    settings = {part: child for part, child in node.value.items() if part not in ("name", "file")}
    if "weight" in settings:
        hint = f"a weight belongs to a list of objectives: {KEY}: [{{name: {name}, weight: ...}}, ...]"
        raise RecipeError(hint, key=join(key, "weight"), origin=settings["weight"].origin)
    spec: Mapping[str, Any] = MappingProxyType({})
    if of_formula:
        if "file" in node.value:
            hint = "a file holds a function or a class: give its name in the place of formula"
            raise RecipeError(hint, key=join(key, "file"), origin=node.value["file"].origin)
        target: Any = FormulaObjective
    elif "file" in node.value:
        file = str(Path(_text(node.value, "file", node, key)).expanduser().absolute())
        spec = MappingProxyType({"file": file, "name": name})
        target = _target(file, name, node.value, key)
    else:
        at_name, name_key = (node, key) if node.implied else (node.value["name"], join(key, "name"))
        target = _registered(name, at_name, name_key)
    _refuse_near_smoothing(settings, target, key)
    smoothing = None
    if "label_smoothing" in settings and not _has_setting(target, "label_smoothing"):
        smoothing = settings.pop("label_smoothing")
    objective = _built(target, name, spec, Node(settings, node.origin), node.value, key)
    if smoothing is None:
        return objective, spec
    with blaming(smoothing, join(key, "label_smoothing")):
        share = convert(smoothing, float, join(key, "label_smoothing"))
        return Smoothed(objective=objective, label_smoothing=share), spec


def _text(section: dict[str, Node], part: str, node: Node, key: str) -> str:
    if part not in section:
        raise MissingSettingError(join(key, part), origin=node.origin)
    return str(convert(section[part], str, join(key, part)))


def _registered(name: str, at_name: Node, key: str) -> type[Objective]:
    with blaming(Node(name, at_name.origin), key):
        return OBJECTIVES[OBJECTIVES.resolve(name)]


def _target(file: str, name: str, section: dict[str, Node], key: str) -> Any:
    with blaming(section["file"], join(key, "file")):
        return getattr(load_python_file(file), name, None)


def _has_setting(target: Any, name: str) -> bool:
    if inspect.isfunction(target):
        return name in inspect.signature(target).parameters
    return is_dataclass(target) and name in {field.name for field in fields(target)}


def _refuse_near_smoothing(settings: dict[str, Node], target: Any, key: str) -> None:
    """Refuse a misspelt label_smoothing, which objectives that do not have it would not suggest.

    Raises:
        RecipeError: naming it.
    """
    for name, child in settings.items():
        near = get_close_matches(name, ["label_smoothing"], cutoff=0.9)
        if near and name != near[0] and not _has_setting(target, name):
            raise RecipeError(
                f"no setting {name!r}; did you mean {near[0]!r}?", key=join(key, name), origin=child.origin
            )


def _built(
    target: Any, name: str, spec: Mapping[str, Any], settings: Node, section: dict[str, Node], key: str
) -> Objective:
    if inspect.isfunction(target):
        given = _arguments(target, settings, key)
        with blaming(settings, key):
            return load_objective(spec["file"], name, given)
    if _is_settings_class(target):
        objective: Objective = build(settings, target, key, owner=f"objective {name!r}")
        return objective
    with blaming(section["name"], join(key, "name")):
        return load_objective(spec["file"], name, {})  # says what the file does hold


def _is_settings_class(target: object) -> bool:
    return isinstance(target, type) and issubclass(target, Objective) and is_dataclass(target)


def _arguments(function: Callable[..., Any], settings: Node, key: str) -> dict[str, Any]:
    """Return the settings by the function's annotations, where it has any."""
    assert isinstance(settings.value, dict)
    hints = _hints(function)
    for name, parameter in inspect.signature(function).parameters.items():
        required = parameter.default is parameter.empty and parameter.kind not in (
            parameter.VAR_POSITIONAL,
            parameter.VAR_KEYWORD,
        )
        if required and name not in settings.value and name not in ("policy", "reference"):
            raise MissingSettingError(join(key, name), origin=settings.origin)
    return {name: convert(child, hints.get(name, Any), join(key, name)) for name, child in settings.value.items()}


def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    try:
        return get_type_hints(function)
    except NameError:  # an annotation that its module imports for type checkers only
        return {}
