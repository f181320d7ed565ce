"""A recipe's file and its overrides as one tree of values that know where they were written."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from align.recipe.errors import Origin, RecipeError
from align.recipe.overrides import apply_override
from align.recipe.yaml_tree import Node, read_yaml


@dataclass(frozen=True, slots=True)
class RecipeTree:
    """What a recipe says, before it is checked.

    Attributes:
        root: the sections.
    """

    root: Node

    def origin(self, key: str) -> Origin:
        """Return where the value of a dotted key was written; ``default`` where it was not."""
        node: Node | None = self.root
        for part in key.split("."):
            node = _child(node, part) if node else None
        return node.origin if node else Origin()


def load_tree(path: str | Path, overrides: Sequence[str] = ()) -> RecipeTree:
    """Read a recipe and lay overrides over it, later ones over earlier ones.

    Short forms become long ones on the way: a source that is a text or a single mapping becomes a list, an objective
    that is a text becomes its name.

    Raises:
        RecipeError: if the file cannot be read or is no YAML mapping, or an override is not ``section.key=value``.
    """
    root = spelled_out(read_file(path))
    for override in overrides:
        root = spelled_out(apply_override(root, override))
    return RecipeTree(root)


def read_file(path: str | Path) -> Node:
    """Return the outermost mapping of a YAML file; its origin is the file as a whole.

    Raises:
        RecipeError: if the file cannot be read or is no YAML mapping.
    """
    name = str(path)
    root = read_yaml(_text(path), lambda line: Origin(name, line))
    if root is None:
        raise RecipeError("empty; a recipe needs model, data and objective", origin=Origin(name))
    if not isinstance(root.value, dict):
        message = "a recipe is a mapping of sections: model, data, objective, ..."
        raise RecipeError(message, origin=root.origin)
    return Node(root.value, Origin(name))


def _text(path: str | Path) -> str:
    file = Path(path).expanduser()
    try:
        return file.read_bytes().decode("utf-8-sig")
    except FileNotFoundError as error:
        message = f"no such recipe; looked in {file.absolute().parent}"
        raise RecipeError(message, origin=Origin(str(path))) from error
    except UnicodeDecodeError as error:
        line = error.object.count(b"\n", 0, error.start) + 1
        raise RecipeError("not UTF-8 text; save the file as UTF-8", origin=Origin(str(path), line)) from error
    except OSError as error:
        raise RecipeError(f"cannot be read: {error.strerror}", origin=Origin(str(path))) from error


def _child(node: Node, part: str) -> Node | None:
    if isinstance(node.value, dict):
        return node.value.get(part)
    if isinstance(node.value, list) and part.isdecimal() and int(part) < len(node.value):
        return node.value[int(part)]
    return None


def spelled_out(root: Node) -> Node:
    """Return the tree with short forms of sources and of the objective made long."""
    if not isinstance(root.value, dict):
        return root
    sections = dict(root.value)
    data = sections.get("data")
    if data is not None and isinstance(data.value, dict):
        sources = {key: _sources(node) if key in ("train", "eval") else node for key, node in data.value.items()}
        sections["data"] = Node(sources, data.origin)
    objective = sections.get("objective")
    if objective is not None:
        sections["objective"] = _objectives(objective)
    return Node(sections, root.origin)


def _objectives(node: Node) -> Node:
    if isinstance(node.value, list):
        return Node([_objectives(item) for item in node.value], node.origin, node.implied)
    return Node({"name": node}, node.origin, implied=True) if isinstance(node.value, str) else node


def _sources(node: Node) -> Node:
    if isinstance(node.value, list):
        return Node([_source(item) for item in node.value], node.origin, node.implied)
    if isinstance(node.value, str | dict):
        return Node([_source(node)], node.origin, implied=True)
    return node


def _source(node: Node) -> Node:
    return Node({"path": node}, node.origin, implied=True) if isinstance(node.value, str) else node
