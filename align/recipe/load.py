"""A recipe file and its overrides into one checked :class:`~align.recipe.schema.Recipe`."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from align.objectives.registry import did_you_mean
from align.recipe.convert import build
from align.recipe.d2o import D2oSettings
from align.recipe.disentangle import build_disentangle
from align.recipe.errors import RecipeError
from align.recipe.foreign.dialects import refuse_foreign, renamed_hint
from align.recipe.objective import build_objective
from align.recipe.paths import anchored
from align.recipe.schema import (
    DataSettings,
    DiagnosticsSettings,
    EvaluationSettings,
    ModelSettings,
    OutputSettings,
    Recipe,
)
from align.recipe.speed import build_speed
from align.recipe.spo import SpoSettings
from align.recipe.trainer_arguments import build_trainer
from align.recipe.tree import RecipeTree, load_tree
from align.recipe.yaml_tree import Node

__all__ = ["RecipeError", "RecipeTree", "build_recipe", "load_recipe", "load_tree"]

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


def load_recipe(path: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe, lay overrides over it, and check all of it.

    Args:
        path: a YAML file.
        overrides: ``section.key=value``, the value in YAML; a later one stands over an earlier one.

    Raises:
        RecipeError: at the first thing that cannot be run, with its file, line and key.
    """
    return build_recipe(load_tree(path, overrides))


def build_recipe(tree: RecipeTree) -> Recipe:
    """Check a tree and make its recipe; paths that exist become absolute.

    Raises:
        RecipeError: for a recipe of another project, an unknown section or setting, a missing one, a wrong type, or a
            value out of range.
    """
    refuse_foreign(tree.root)
    _check_sections(tree.root)
    model: ModelSettings = _section(tree.root, "model", ModelSettings)
    data: DataSettings = _section(tree.root, "data", DataSettings)
    objective, spec = build_objective(_node(tree.root, "objective", None), tree.root)
    recipe = Recipe(
        model=model,
        data=data,
        objective=objective,
        objective_spec=spec,
        trainer=build_trainer(_mapping(tree.root, "trainer"), holds_out=bool(data.eval or data.eval_fraction)),
        evaluation=_section(tree.root, "evaluation", EvaluationSettings),
        diagnostics=_section(tree.root, "diagnostics", DiagnosticsSettings),
        disentangle=build_disentangle(_node(tree.root, "disentangle", None)),
        spo=_optional(tree.root, "spo", SpoSettings),
        d2o=_optional(tree.root, "d2o", D2oSettings),
        speed=build_speed(_node(tree.root, "speed", None)),
        output=_section(tree.root, "output", OutputSettings),
    )
    return anchored(recipe)


def _check_sections(root: Node) -> None:
    assert isinstance(root.value, dict)
    for name, node in root.value.items():
        if name not in SECTIONS:
            hint = renamed_hint(name, name) or did_you_mean(name, list(SECTIONS))
            message = f"a recipe has no section {name!r}{hint}"
            raise RecipeError(message, key=name, origin=node.origin)


def _node(root: Node, name: str, default: dict[str, Node] | None) -> Node:
    assert isinstance(root.value, dict)
    return root.value.get(name, Node(default, root.origin))


def _mapping(root: Node, name: str) -> Node:
    """Return a section; one that is absent or has nothing under it is an empty mapping."""
    node = _node(root, name, {})
    return Node({}, node.origin) if node.value is None else node


def _section(root: Node, name: str, cls: type[Any]) -> Any:
    return build(_mapping(root, name), cls, name)


def _optional(root: Node, name: str, cls: type[Any]) -> Any:
    """Return a section whose absence means something else than its defaults."""
    return None if _node(root, name, None).value is None else _section(root, name, cls)
