"""A recipe back into YAML, with every default written out, and the digest that names its run."""

from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from enum import Enum
from hashlib import sha256
from typing import Any

import yaml

from align.logic.compiled import FormulaObjective
from align.objectives.base import Objective
from align.objectives.custom import FunctionObjective
from align.objectives.mixture import Mixture, Smoothed
from align.objectives.registry import OBJECTIVES
from align.recipe.disentangle import name_of_method
from align.recipe.paths import anchored
from align.recipe.schema import DiagnosticsSettings, Recipe
from align.recipe.yaml_tree import scalar


def as_mapping(recipe: Recipe) -> dict[str, Any]:
    """Return the whole recipe as plain data, section by section, existing paths absolute.

    Raises:
        ValueError: if the objective was made in Python and neither a name nor a file leads to it.
    """
    recipe = anchored(recipe)
    sections = {name: _plain(getattr(recipe, name)) for name in SECTIONS if name not in ("objective", "disentangle")}
    sections["objective"] = _objective(recipe)
    method = recipe.disentangle
    sections["disentangle"] = None if method is None else {"name": name_of_method(method), **_plain(method)}
    return {name: sections[name] for name in SECTIONS}


def resolved_yaml(recipe: Recipe) -> str:
    """Return YAML that :func:`~align.recipe.load.load_recipe` reads as an equal recipe, from any folder.

    Raises:
        ValueError: as :func:`as_mapping`.
    """
    return dump(as_mapping(recipe))


SECTIONS = (
    "model",
    "data",
    "objective",
    "trainer",
    "evaluation",
    "diagnostics",
    "disentangle",
    "spo",
    "d2o",
    "speed",
    "output",
)
SPLIT = ("per_device_train_batch_size", "gradient_accumulation_steps", "per_device_eval_batch_size")
"""Settings of ``trainer`` that say how an optimiser step, or an evaluation, is cut into batches."""


LATER: Mapping[str, Any] = {"diagnostics": DiagnosticsSettings(), "disentangle": None, "spo": None, "d2o": None}
"""Sections that came later: recipes that leave them out keep the digests that they had before."""


def deciding(recipe: Recipe) -> dict[str, Any]:
    """Return the sections that decide about a run, as plain data.

    Raises:
        ValueError: as :func:`as_mapping`.
    """
    sections = as_mapping(recipe)
    del sections["output"], sections["speed"]
    for name, default in LATER.items():
        if getattr(recipe, name) == default:
            del sections[name]
    return sections


def digest(recipe: Recipe, *, split: bool = True) -> str:
    """Return 8 hexadecimal digits that two recipes share exactly when they resolve to the same run.

    Where the run goes (``output``), how it is computed faster (``speed``) and the order of settings do not count.

    Args:
        recipe: the recipe.
        split: whether it counts how steps are cut into batches (:data:`SPLIT`).

    Raises:
        ValueError: as :func:`as_mapping`.
    """
    sections = deciding(recipe)
    if not split:
        sections["trainer"] = {name: value for name, value in sections["trainer"].items() if name not in SPLIT}
    return sha256(dump(sections, sort_keys=True).encode()).hexdigest()[:8]


def dump(value: Any, *, sort_keys: bool = False, flow: bool = False) -> str:
    """Return plain data as YAML that both PyYAML and :func:`~align.recipe.yaml_tree.read_yaml` read back alike.

    Args:
        value: mappings, lists and scalars.
        sort_keys: order every mapping by its keys.
        flow: all on one line, as on a command line.
    """
    width = float("inf")
    text: str = yaml.dump(
        value, Dumper=_Dumper, sort_keys=sort_keys, default_flow_style=flow, allow_unicode=True, width=width
    )
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader could take for something else, and repeats instead of using anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        return True

    def represent_text(self, data: str) -> yaml.ScalarNode:
        clear = isinstance(scalar(data), str) and data != "<<"
        style = '"' if not data.isprintable() else None if clear else "'"
        return self.represent_scalar("tag:yaml.org,2002:str", data, style=style)


_Dumper.add_representer(str, _Dumper.represent_text)


def _objective(recipe: Recipe) -> dict[str, Any] | list[dict[str, Any]]:
    objective, specs = recipe.objective, recipe.objective_spec
    if not isinstance(objective, Mixture):
        return _one(objective, specs[0])
    parts = zip(objective.parts, specs, strict=True)
    return [{**_one(part.objective, spec), "weight": part.weight} for part, spec in parts]


def _one(objective: Objective, where: Mapping[str, Any]) -> dict[str, Any]:
    if isinstance(objective, Smoothed):
        return {**_one(objective.objective, where), "label_smoothing": objective.label_smoothing}
    spec = dict(where)
    if isinstance(objective, FormulaObjective):
        return _plain(objective)  # type: ignore[no-any-return]
    if isinstance(objective, FunctionObjective):
        settings: dict[str, Any] = _plain(objective.settings)
    else:
        settings = _plain(objective)
        spec = spec or {"name": OBJECTIVES.name_of(objective)}
    if "file" not in spec and str(spec.get("name")) not in OBJECTIVES:
        name = type(objective).__name__
        raise ValueError(
            f"no recipe leads to the objective {name}: register it, or give objective_spec its file and name"
        )
    return spec | settings


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name)) for field in fields(value) if field.init}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return value.value if isinstance(value, Enum) else value
