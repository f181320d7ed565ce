"""Of which code a result is: a digest of the modules that decide a method's figures, as they are now."""

import ast
from collections.abc import Iterator
from functools import cache
from hashlib import sha256
from pathlib import Path
from typing import Any

import align
from align.wings import data
from align.wings.method import WINGS
from align.wings.registry import modules

DECIDE = ("gallery", "networks", "views", "probes", "embedding", "processes", "trainer", "workbench", "parts", "data")
"""Of ``align.wings``; the others read recipes, draw, judge and tell."""
BEYOND = ("align.trainers.base", "align.data.order", "align.recipe.trainer_arguments", "align.wings.run")
"""Modules besides: how a step weighs rows, their order, arguments of a training, and what a run seeds."""


@cache
def code_digest(method: str, source: str) -> str:
    """Return 8 hexadecimal digits of what a method's module, its data's, and those they import do.

    Comments, docstrings and layout do not count; nothing is imported or run. Modules outside the wings do not count
    but for :data:`BEYOND`; versions of packages stand in each run.

    Args:
        method: its name.
        source: name of its data.
    """
    found = sha256()
    for name in sorted(_reached([modules()[method], f"{data.__name__}.{source}", *BEYOND])):
        found.update(f"{name}\n{_bare(name)}\n".encode())
    return found.hexdigest()[:8]


def _reached(names: list[str]) -> set[str]:
    """Return the modules and all that they import of those that decide."""
    found: set[str] = set()
    while names:
        name = names.pop()
        if name not in found:
            found.add(name)
            names += [other for other in _imported(name) if _decides(other)]
    return found


def _decides(module: str) -> bool:
    package, wing, *rest = [*module.split("."), "", ""][:4]
    return package == "align" and bool(rest[0]) and (wing in WINGS or (wing == "wings" and rest[0] in DECIDE))


def _imported(module: str) -> Iterator[str]:
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.ImportFrom) and node.module:
            yield node.module
            yield from (f"{node.module}.{alias.name}" for alias in node.names if _file(f"{node.module}.{alias.name}"))


@cache
def _bare(module: str) -> str:
    tree = _tree(module)
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):  # a text that stands alone does nothing: docstrings, and those below attributes
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return _told(tree)


def _told(node: Any) -> str:
    """Return a tree as text that is the same under every Python: without what is empty, which some leave out."""
    if isinstance(node, list):
        return "[" + ",".join(map(_told, node)) + "]"
    if not isinstance(node, ast.AST):
        return repr(node)
    if isinstance(node, ast.JoinedStr):
        node.values = [one for one in node.values if not (isinstance(one, ast.Constant) and one.value == "")]
    given = ((name, getattr(node, name, None)) for name in node._fields)
    inside = ",".join(f"{name}={_told(value)}" for name, value in given if value is not None and value != [])
    return f"{type(node).__name__}({inside})"


def _is_text(node: ast.AST) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _tree(module: str) -> ast.Module:
    file = _file(module)
    return ast.parse(file.read_text(encoding="utf-8")) if file else ast.Module(body=[], type_ignores=[])


def _file(module: str) -> Path | None:
    """Return a module's file; None for what is none of align's, such as a class."""
    package, *rest = module.split(".")
    file = Path(align.__file__).parent.joinpath(*rest)
    found = [one for one in (file.with_suffix(".py"), file / "__init__.py") if package == "align" and one.is_file()]
    return found[0] if found else None
