"""The whole configuration of a run, a value a line, and where each came from: ``--print-config``."""

from collections.abc import Iterator, Mapping
from dataclasses import MISSING, Field
from typing import Any

from align.recipe.resolve import as_mapping, dump
from align.recipe.schema import Recipe
from align.recipe.trainer_fields import known_fields
from align.recipe.tree import RecipeTree
from align.recipe.yaml_tree import join

WIDEST = 40
"""Values longer than this do not push the origins of the others to the right."""


def print_config(recipe: Recipe, tree: RecipeTree) -> str:
    """Return ``key = value  # origin`` for every setting, those of ``TrainingArguments`` among them.

    A line up to its ``#`` is an override that sets what it says (without the spaces around ``=``).

    Args:
        recipe: built from ``tree``.
        tree: says where each value was written: ``FILE:LINE``, ``command line`` or ``default``.

    Raises:
        ValueError: as :func:`~align.recipe.resolve.as_mapping`.
    """
    return settings_lines(as_mapping(recipe), tree)


def settings_lines(sections: dict[str, Any], tree: RecipeTree) -> str:
    """Return ``key = value  # origin`` for every setting of resolved sections, all of the trainer's among them."""
    sections["trainer"] = {name: sections["trainer"].get(name, _default(f)) for name, f in known_fields().items()}
    lines = [(key, dump(value, flow=True).removesuffix("...\n").strip()) for key, value in _leaves(sections)]
    widest_key = max(len(key) for key, _ in lines)
    widest = max((len(value) for _, value in lines if len(value) <= WIDEST), default=0)
    return "\n".join(f"{key:{widest_key}} = {value:{widest}}   # {tree.origin(key)}" for key, value in lines)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from _leaves(inner, join(key, name))
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from _leaves(inner, join(key, index))
    else:
        yield key, value


def _default(field: "Field[Any]") -> Any:
    if field.default is not MISSING:
        return field.default
    return None if field.default_factory is MISSING else field.default_factory()
