"""YAML text into a tree that knows where each value was written.

YAML is read more strictly than by the 1.1 rules of PyYAML: only ``true`` and ``false`` are truth values (``no`` and
``off`` are texts), ``1e-4`` is a number, a key given twice is an error, and tags (``!!python/...``) are refused.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeAlias

import yaml

from align.recipe.errors import Origin, RecipeError

Scalar: TypeAlias = str | int | float | bool | None

_INT = re.compile(r"[-+]?[0-9]+")
_FLOAT = re.compile(r"[-+]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][-+]?[0-9]+)?")
_NAMED: dict[str, Scalar] = {"": None, "~": None, "null": None, "true": True, "false": False}
_NAMED |= {".nan": float("nan"), ".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf")}


@dataclass(frozen=True, slots=True)
class Node:
    """A value of a recipe and where it was written.

    Attributes:
        value: a scalar, a mapping of nodes, or a list of nodes.
        origin: for an entry of a mapping the line of its key, else its own.
        implied: whether the recipe used a short form and this list or mapping is written nowhere.
    """

    value: "Scalar | dict[str, Node] | list[Node]"
    origin: Origin
    implied: bool = False


def join(key: str, part: str | int) -> str:
    """Return the dotted path of ``part`` inside ``key``."""
    return f"{key}.{part}" if key else str(part)


def plain(node: Node) -> Any:
    """Return a node's value without the places."""
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def scalar(text: str) -> Scalar:
    """Return what an unquoted word of YAML means.

    Examples:
        >>> [scalar(word) for word in ("8", "1e-4", "True", "no", "null", "1:30")]
        [8, 0.0001, True, 'no', None, '1:30']
    """
    if text.lower() in _NAMED:
        return _NAMED[text.lower()]
    if _INT.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def read_yaml(text: str, origin_at: Callable[[int], Origin], key: str = "") -> Node | None:
    """Read one YAML document; None where it is empty.

    Args:
        text: the document.
        origin_at: the origin of a line, counted from 1.
        key: dotted path of the whole document, for messages.

    Raises:
        RecipeError: for a syntax error, a key given twice, a tag, an anchor that contains itself, or values that stand
            too deep in one another.
    """
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        raise RecipeError(f"not valid YAML: {_reason(error)}", key=key, origin=origin_at(_line(mark))) from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, int(error.position)) + 1
        reason = f"the character {chr(int(error.character))!r} is not allowed"
        raise RecipeError(f"not valid YAML: {reason}", key=key, origin=origin_at(line)) from error
    except RecursionError as error:
        raise RecipeError("lists or mappings stand too deep in one another", key=key, origin=origin_at(1)) from error
    return None if root is None else _Reader(origin_at).read(root, key, origin_at(_line(root.start_mark)))


class _Loader(yaml.BaseLoader):
    """Leaves words alone, and tags empty where the text has none."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        return ""


class _Reader:
    def __init__(self, origin_at: Callable[[int], Origin]) -> None:
        self._origin_at = origin_at
        self._open: list[yaml.Node] = []

    def read(self, raw: yaml.Node, key: str, origin: Origin) -> Node:
        if raw.tag:
            raise RecipeError(f"tags such as {raw.tag!r} are not read; write the plain value", key=key, origin=origin)
        if any(raw is parent for parent in self._open):
            raise RecipeError("an anchor contains itself", key=key, origin=origin)
        self._open.append(raw)
        try:
            return Node(self._value(raw, key), origin)
        finally:
            self._open.pop()

    def _value(self, raw: yaml.Node, key: str) -> "Scalar | dict[str, Node] | list[Node]":
        if isinstance(raw, yaml.MappingNode):
            return self._mapping(raw, key)
        if isinstance(raw, yaml.SequenceNode):
            return [self.read(item, join(key, i), self._origin(item)) for i, item in enumerate(raw.value)]
        bare = isinstance(raw, yaml.ScalarNode) and raw.style is None
        return scalar(raw.value) if bare else str(raw.value)

    def _mapping(self, raw: yaml.MappingNode, key: str) -> dict[str, Node]:
        own: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for name, value in raw.value:
            origin, word = self._origin(name), self._word(name, key)
            if word == "<<" and name.style is None:
                for parent in self._merged(value, key, origin):
                    merged = parent | merged
                continue
            if word in own:
                first = own[word].origin.line
                where = f"on line {first} and on line {origin.line}" if origin.line else "in one value"
                raise RecipeError(f"given twice, {where}", key=join(key, word), origin=origin)
            own[word] = self.read(value, join(key, word), origin)
        return own | {word: node for word, node in merged.items() if word not in own}

    def _merged(self, raw: yaml.Node, key: str, origin: Origin) -> Iterator[dict[str, Node]]:
        for part in raw.value if isinstance(raw, yaml.SequenceNode) else [raw]:
            node = self.read(part, key, origin)
            if not isinstance(node.value, dict):
                raise RecipeError("'<<' takes a mapping, or a list of them", key=key, origin=origin)
            yield node.value

    def _word(self, raw: yaml.Node, key: str) -> str:
        if not isinstance(raw, yaml.ScalarNode) or raw.tag:
            raise RecipeError("a key must be a plain word", key=key, origin=self._origin(raw))
        return str(raw.value)

    def _origin(self, raw: yaml.Node) -> Origin:
        return self._origin_at(_line(raw.start_mark))


def _line(mark: "yaml.Mark | None") -> int:
    return 1 if mark is None else int(mark.line) + 1


def _reason(error: yaml.MarkedYAMLError) -> str:
    parts = [part for part in (error.context, error.problem) if part]
    tab = "; a tab cannot indent" if "'\\t'" in str(error.problem) else ""
    return ", ".join(parts) + tab
