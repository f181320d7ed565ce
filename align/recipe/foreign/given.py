"""What a file of another project says, and a record of what has been read of it."""

from typing import Any

from align.recipe.errors import RecipeError
from align.recipe.foreign.answers import truth
from align.recipe.yaml_tree import Node, plain


class Given:
    """Keys of the outermost mapping, each to be taken once.

    Attributes:
        file: as the user named it.
        nodes: the values, by key.
        taken: keys that were read.
    """

    def __init__(self, root: Node) -> None:
        assert isinstance(root.value, dict)
        self.file = root.origin.file or ""
        self.nodes: dict[str, Node] = dict(root.value)
        self.taken: set[str] = set()

    def take(self, key: str, default: Any = None) -> Any:
        """Return a value without places, words of YAML 1.1 for truth values as those; the default for null."""
        if key not in self.nodes:
            return default
        self.taken.add(key)
        value = truth(plain(self.nodes[key]))
        return default if value is None else value

    def peek(self, key: str) -> Any:
        """Return a value and leave it to others to take; None where there is none."""
        return truth(plain(self.nodes[key])) if key in self.nodes else None

    def lift(self, key: str, inner: str) -> str:
        """Make a key of a nested mapping one of the file's, ``key: inner``, and return it; empty for an absent one."""
        nested = self.nodes[key].value if key in self.nodes else None
        if not isinstance(nested, dict) or inner not in nested:
            return ""
        self.nodes[f"{key}: {inner}"] = nested[inner]
        return f"{key}: {inner}"

    def rest(self) -> list[str]:
        """Return the keys that nobody took, in the file's order."""
        return [key for key in self.nodes if key not in self.taken]

    def line(self, key: str) -> int | None:
        """Return the line of a key."""
        return self.nodes[key].origin.line if key in self.nodes else None

    def said(self, *keys: str) -> str:
        """Return those of some keys that the file has, for a comment."""
        return ", ".join(key for key in keys if key in self.nodes)

    def refuse(self, key: str, message: str) -> RecipeError:
        """Return the error of a file that cannot be brought over."""
        return RecipeError(message, key=key, origin=self.nodes[key].origin)
