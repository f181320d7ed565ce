"""Values of a recipe into the types that a settings class declares."""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import MISSING, Field, fields, is_dataclass
from enum import Enum
from types import MappingProxyType, NoneType, UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from align.objectives.registry import did_you_mean
from align.recipe.errors import MissingSettingError, Origin, RecipeError
from align.recipe.foreign.dialects import renamed_hint
from align.recipe.yaml_tree import Node, join, plain

_WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text", NoneType: "null"}
_LISTS = (list, tuple, Sequence)
_MAPPINGS = (dict, Mapping)


def convert(node: Node, annotation: Any, key: str) -> Any:
    """Return a node's value as the annotated type.

    A whole number is a number, ``true`` is neither; an ``Enum`` (alone or beside ``str``) is given by its value and
    stays a text. An annotation that is none of these is not checked.

    Raises:
        RecipeError: naming what was expected and what was found.
    """
    if not _fits(node.value, annotation):
        message = f"expected {_expected(annotation)}, found {_found(node.value)}"
        raise RecipeError(message + _hint(node.value, annotation), key=key, origin=node.origin)
    kind = _kind(annotation)
    if kind is Union:
        return convert(node, _member(node.value, annotation), key)
    if kind is Literal or _is_enum(kind):
        return _choice(node, annotation, key)
    if is_dataclass(kind):
        return build(node, kind, key)
    if kind in _LISTS:
        return _list(node, annotation, key)
    if kind in _MAPPINGS:
        return _mapping(node, annotation, key)
    return float(node.value) if kind is float else plain(node)  # type: ignore[arg-type]


def build(node: Node, cls: Any, key: str, *, owner: str = "") -> Any:
    """Make a settings class from a mapping.

    Args:
        node: the mapping.
        cls: the dataclass whose fields are the settings.
        key: dotted path of the mapping.
        owner: what has these settings, for messages; the key where empty.

    Raises:
        RecipeError: for a setting that does not exist, is missing, has the wrong type, or that the class refuses.
    """
    settings = _fields_of(node, fields(cls), get_type_hints(cls), key, owner=owner)
    with blaming(node, key):
        return cls(**settings)


def entries(node: Node, key: str) -> dict[str, Node]:
    """Return what a mapping holds.

    Raises:
        RecipeError: if the node is no mapping.
    """
    if not isinstance(node.value, dict):
        raise RecipeError(f"expected a mapping, found {_found(node.value)}", key=key, origin=node.origin)
    return node.value


def _fields_of(
    node: Node, declared: Sequence[Field[Any]], hints: Mapping[str, Any], key: str, *, owner: str = ""
) -> dict[str, Any]:
    """Return the settings of a mapping by the fields' types, without those left at their default.

    Raises:
        RecipeError: for a setting that does not exist, is missing, or has the wrong type.
    """
    given = entries(node, key)
    known = {field.name: field for field in declared if field.init}
    for name, child in given.items():
        if name not in known:
            hint = renamed_hint(name, join(key, name)) or did_you_mean(name, list(known))
            message = f"{owner or repr(key)} has no setting {name!r}{hint}"
            raise RecipeError(message, key=join(key, name), origin=child.origin)
    settings = {}
    for name, field in known.items():
        if name in given:
            settings[name] = convert(given[name], hints[name], join(key, name))
        elif field.default is MISSING and field.default_factory is MISSING:
            raise MissingSettingError(join(key, name), origin=node.origin)
        elif type(field.default) is int:  # as one that is written: 32 for a float is 32.0, so that digests agree
            settings[name] = convert(Node(field.default, Origin()), hints[name], join(key, name))
    return settings


@contextmanager
def blaming(node: Node, key: str) -> Iterator[None]:
    """Turn a ValueError about a node into a RecipeError.

    Raises:
        RecipeError: at the setting that the message begins with or says does not exist, else at the node.
    """
    try:
        yield
    except RecipeError:
        raise
    except ValueError as error:
        raise _blame(str(error), node, key) from error


def _blame(message: str, node: Node, key: str) -> RecipeError:
    for pattern in (r"^\W*(\w+)", r"has no setting '(\w+)'"):
        word = re.search(pattern, message)
        if word and isinstance(node.value, dict) and word[1] in node.value:
            return RecipeError(message, key=join(key, word[1]), origin=node.value[word[1]].origin)
    return RecipeError(message, key=key, origin=node.origin)


def _kind(annotation: Any) -> Any:
    kind = get_origin(annotation) or annotation
    return {UnionType: Union, None: NoneType}.get(kind, kind)


def _is_enum(kind: Any) -> bool:
    return isinstance(kind, type) and issubclass(kind, Enum)


def _fits(value: object, annotation: Any) -> bool:
    """Whether a value has the outer form of a type; what it holds is looked at later."""
    kind = _kind(annotation)
    if kind is Union:
        return any(_fits(value, member) for member in get_args(annotation))
    if kind is Literal:
        return any(type(value) is type(choice) for choice in get_args(annotation))
    if kind is float or kind is int:
        return isinstance(value, int if kind is int else int | float) and not isinstance(value, bool)
    if kind in _MAPPINGS or is_dataclass(kind):
        return isinstance(value, dict)
    if kind in _LISTS:
        return isinstance(value, list)
    if _is_enum(kind):
        return isinstance(value, str)
    return isinstance(value, kind) if kind in _WORDS else True


def _member(value: object, annotation: Any) -> Any:
    """Return the type of a union that a value belongs to: choices before a text, the exact type before others."""
    members = [member for member in get_args(annotation) if _fits(value, member)]
    return min(members, key=lambda m: (not _is_enum(_kind(m)) and _kind(m) is not Literal, type(value) is not _kind(m)))


def _choice(node: Node, annotation: Any, key: str) -> Any:
    choices = [c.value for c in annotation] if _is_enum(annotation) else list(get_args(annotation))
    if node.value not in choices:
        message = f"{node.value!r} is none of the choices" + did_you_mean(str(node.value), [str(c) for c in choices])
        raise RecipeError(message, key=key, origin=node.origin)
    return node.value


def _list(node: Node, annotation: Any, key: str) -> Any:
    assert isinstance(node.value, list)
    inner = (get_args(annotation) or (Any,))[0]
    values = [convert(c, inner, key if node.implied else join(key, i)) for i, c in enumerate(node.value)]
    return tuple(values) if _kind(annotation) is tuple else values


def _mapping(node: Node, annotation: Any, key: str) -> Any:
    assert isinstance(node.value, dict)
    inner = (get_args(annotation) or (Any, Any))[1]
    values = {name: convert(child, inner, join(key, name)) for name, child in node.value.items()}
    return values if _kind(annotation) is dict else MappingProxyType(values)


def _expected(annotation: Any) -> str:
    kind = _kind(annotation)
    if kind is Union:
        members = sorted(get_args(annotation), key=lambda member: member is NoneType)
        return " or ".join(dict.fromkeys(_expected(member) for member in members))
    if kind is Literal:
        return "one of " + ", ".join(map(repr, get_args(annotation)))
    if kind in _MAPPINGS or is_dataclass(kind):
        return "a mapping"
    return "a list" if kind in _LISTS else _WORDS.get(kind, "a text")


def _hint(value: object, annotation: Any) -> str:
    quotable = isinstance(value, int | float) and str in (annotation, *get_args(annotation))
    return "; a text that looks like this needs quotes" if quotable else ""


def _found(value: object) -> str:
    if value is None:
        return "nothing (null)"
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, bool):
        return f"{str(value).lower()} (a truth value)"
    return f"{value!r} ({_WORDS[type(value)]})"
