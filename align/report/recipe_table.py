"""Recipes of several runs: what differs, and what does not."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.recipe.resolve import dump
from align.recipe.yaml_tree import join

ABSENT = "\u2014"
LEFT_OUT = "output"
"""Where a run goes says nothing of what it does."""


@dataclass(frozen=True, slots=True)
class Differences:
    """Settings by dotted key.

    Attributes:
        differing: values of each run, of keys that are not alike everywhere; an em dash where a run has no such key.
        same: the value that all runs share.
    """

    differing: Mapping[str, Sequence[str]]
    same: Mapping[str, str]


def differences(recipes: Sequence[Mapping[str, Any]]) -> Differences:
    """Return which settings differ between recipes; where runs go (``output``) is left out."""
    flat = [
        dict(leaf for key, value in recipe.items() if key != LEFT_OUT for leaf in leaves(value, key))
        for recipe in recipes
    ]
    keys = list(dict.fromkeys(key for settings in flat for key in settings))
    table = {key: [settings.get(key, ABSENT) for settings in flat] for key in keys}
    differing = {key: values for key, values in table.items() if len(set(values)) > 1}
    return Differences(differing, {key: values[0] for key, values in table.items() if key not in differing})


def leaves(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """Yield every setting inside a recipe as dotted key and YAML value.

    Examples:
        >>> list(leaves({"trainer": {"seed": 0}, "data": {"train": [{"path": "x"}]}}))
        [('trainer.seed', '0'), ('data.train.0.path', 'x')]
    """
    if isinstance(value, Mapping) and value:
        for name, inner in value.items():
            yield from leaves(inner, join(key, str(name)))
    elif isinstance(value, list) and any(isinstance(inner, Mapping) for inner in value):
        for index, inner in enumerate(value):
            yield from leaves(inner, join(key, index))
    else:
        yield key, dump(value, flow=True).removesuffix("...\n").strip()
