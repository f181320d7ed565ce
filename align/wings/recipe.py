"""Recipes of methods: ``method``, its ``settings``, ``data``, ``trainer``, ``claim`` and ``output``, strictly."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from hashlib import sha256
from pathlib import Path
from types import MappingProxyType
from typing import Any

from align.objectives.registry import did_you_mean
from align.recipe.convert import build, convert
from align.recipe.errors import MissingSettingError, RecipeError
from align.recipe.overrides import apply_override
from align.recipe.paths import absolute_where_it_exists
from align.recipe.resolve import dump
from align.recipe.schema import OutputSettings
from align.recipe.trainer_arguments import build_trainer
from align.recipe.tree import RecipeTree, read_file
from align.recipe.yaml_tree import Node
from align.wings.claim import Claim
from align.wings.registry import load
from align.wings.sources import build_data

SECTIONS = ("method", "settings", "data", "trainer", "claim", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class MethodRecipe:
    """One run of a method.

    Attributes:
        method: its name.
        settings: an object of its ``Settings``.
        data: name of the source.
        data_settings: an object of the source's ``Settings``.
        trainer: settings of ``transformers.TrainingArguments``.
        claim: what is claimed of the method; None where nothing is.
        output: where the run goes.
    """

    method: str
    settings: Any
    data: str
    data_settings: Any
    trainer: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    claim: Claim | None = None
    output: OutputSettings = field(default_factory=OutputSettings)

    @property
    def seed(self) -> int:
        """Seed of everything that is random in the run."""
        return int(self.trainer.get("seed", 42))


def load_method_recipe(path: str | Path, overrides: Sequence[str] = ()) -> MethodRecipe:
    """Read a method's recipe, lay overrides over it, and check all of it.

    Raises:
        RecipeError: at the first thing that cannot be run, with its file, line and key.
    """
    return build_method_recipe(method_tree(path, overrides))


def method_tree(path: str | Path, overrides: Sequence[str] = ()) -> RecipeTree:
    """Read a method's recipe and lay overrides over it, later ones over earlier ones."""
    root = read_file(path)
    for override in overrides:
        root = apply_override(root, override)
    return RecipeTree(root)


def build_method_recipe(tree: RecipeTree) -> MethodRecipe:
    """Check a tree and make its recipe.

    Raises:
        RecipeError: for an unknown method, section or setting, a missing one, a wrong type, or a value out of range.
    """
    root = tree.root
    assert isinstance(root.value, dict)
    for name, node in root.value.items():
        if name not in SECTIONS:
            message = f"a method's recipe has no section {name!r}" + did_you_mean(name, list(SECTIONS))
            raise RecipeError(message, key=name, origin=node.origin)
    for name in ("method", "data"):
        if name not in root.value:
            raise MissingSettingError(name, origin=root.origin)
    method = convert(root.value["method"], str, "method")
    try:
        cls = load(method)
    except ValueError as error:
        raise RecipeError(str(error), key="method", origin=root.value["method"].origin) from error
    data, data_settings = build_data(root.value["data"])
    claim = root.value.get("claim")
    return MethodRecipe(
        method=method,
        settings=build(_section(root, "settings"), cls.Settings, "settings", owner=f"the method {method!r}"),
        data=data,
        data_settings=data_settings,
        trainer=build_trainer(_section(root, "trainer"), holds_out=True),
        claim=None if claim is None or claim.value is None else build(claim, Claim, "claim"),
        output=build(_section(root, "output"), OutputSettings, "output"),
    )


def with_overrides(tree: RecipeTree, overrides: Mapping[str, Any]) -> RecipeTree:
    """Return the tree with the values of dotted keys replaced."""
    root = tree.root
    for key, value in overrides.items():
        root = apply_override(root, f"{key}={dump(value, flow=True).removesuffix('...' + chr(10)).strip()}")
    return RecipeTree(root)


def as_mapping(recipe: MethodRecipe) -> dict[str, Any]:
    """Return the whole recipe as plain data, every default written out, existing paths absolute."""
    data = {"name": recipe.data, **_plain(recipe.data_settings)}
    if "path" in data:
        data["path"] = absolute_where_it_exists(data["path"])
    sections = {
        "method": recipe.method,
        "settings": _plain(recipe.settings),
        "data": data,
        "trainer": _plain(recipe.trainer),
        "claim": _plain(recipe.claim),
        "output": _plain(recipe.output),
    }
    return sections if recipe.claim is not None else {k: v for k, v in sections.items() if k != "claim"}


def resolved_yaml(recipe: MethodRecipe) -> str:
    """Return YAML that :func:`load_method_recipe` reads as an equal recipe, from any folder."""
    return dump(as_mapping(recipe))


def digest(recipe: MethodRecipe, *, with_claim: bool = False) -> str:
    """Return 8 hexadecimal digits of what decides about a run: not where it goes, nor what is claimed unless asked."""
    sections = as_mapping(recipe)
    del sections["output"]
    if not with_claim:
        sections.pop("claim", None)
    return sha256(dump(sections, sort_keys=True).encode()).hexdigest()[:8]


def _section(root: Node, name: str) -> Node:
    assert isinstance(root.value, dict)
    node = root.value.get(name, Node({}, root.origin))
    return Node({}, node.origin) if node.value is None else node


def _plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return {one.name: _plain(getattr(value, one.name)) for one in fields(value) if one.init}
    if isinstance(value, Mapping):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return [_plain(inner) for inner in value] if isinstance(value, list | tuple) else value
