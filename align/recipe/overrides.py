"""``section.key=value`` of the command line, laid over the tree of the file."""

from dataclasses import replace

from align.recipe.errors import Origin, RecipeError
from align.recipe.yaml_tree import Node, join, read_yaml

FORM = "write section.key=value, for example trainer.max_steps=40"


def apply_override(root: Node, override: str) -> Node:
    """Return the tree with one value replaced; mappings on the way are made where absent.

    Raises:
        RecipeError: if the override is not ``key=value``, its value is not YAML, or its key leads through a value that
            holds no others.
    """
    origin = Origin(override=override)
    key, equals, text = (part.strip() for part in override.partition("="))
    if not equals or not all(key.split(".")):
        raise RecipeError(f"not an override; {FORM}", origin=origin)
    value = read_yaml(text, lambda line: origin, key)
    if value is None:
        raise RecipeError("nothing after '='; write null for none, '' for an empty text", key=key, origin=origin)
    return _replaced(root, "", key.split("."), value)


def _replaced(node: Node, key: str, parts: list[str], value: Node) -> Node:
    if not parts:
        return value
    if isinstance(node.value, list):
        return _replaced_in_list(node, key, parts, value)
    if node.value is not None and not isinstance(node.value, dict):
        message = f"{key} is a single value, it holds no {parts[0]!r}"
        raise RecipeError(message, key=join(key, parts[0]), origin=value.origin)
    children: dict[str, Node] = dict(node.value or {})
    part, rest = parts[0], parts[1:]
    child = children.get(part, Node(None, value.origin))
    return Node(children | {part: _replaced(child, join(key, part), rest, value)}, node.origin)


def _replaced_in_list(node: Node, key: str, parts: list[str], value: Node) -> Node:
    assert isinstance(node.value, list)
    items = list(node.value)
    index, rest = (int(parts[0]), parts[1:]) if parts[0].isdecimal() else (0, parts)
    if rest is parts and len(items) != 1:
        message = f"{key} is a list of {len(items)}; say which, for example {key}.0.{'.'.join(parts)}"
        raise RecipeError(message, key=join(key, parts[0]), origin=value.origin)
    if index >= len(items):
        message = f"{key} is a list of {len(items)}; the last is {key}.{len(items) - 1}"
        raise RecipeError(message, key=join(key, index), origin=value.origin)
    items[index] = _replaced(items[index], join(key, index), rest, value)
    return replace(node, value=items)
