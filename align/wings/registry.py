"""Methods by name: found as files in the rooms of the wings, imported when asked for."""

from functools import cache
from importlib import import_module
from pathlib import Path

import align
from align.objectives.registry import did_you_mean
from align.wings.method import WINGS, Method


@cache
def modules() -> dict[str, str]:
    """Return the module of every method by the method's name, sorted; no wing is imported.

    Raises:
        ValueError: two methods share a name.
    """
    root = Path(align.__file__).parent
    found: dict[str, str] = {}
    for wing in WINGS:
        for file in sorted((root / wing).glob("*/*.py")):
            if file.stem.startswith("_"):
                continue
            if file.stem in found:
                raise ValueError(f"two methods are called {file.stem!r}: {found[file.stem]} and {file}")
            found[file.stem] = ".".join(("align", wing, file.parent.name, file.stem))
    return dict(sorted(found.items()))


def load(name: str) -> type[Method]:
    """Import a method.

    Raises:
        ValueError: there is none of that name.
    """
    if name not in modules():
        raise ValueError(f"no method {name!r}" + did_you_mean(name, list(modules())))
    module = import_module(modules()[name])
    found = [
        one
        for one in vars(module).values()
        if isinstance(one, type)
        and issubclass(one, Method)
        and one.__module__ == module.__name__
        and "about" in vars(one)
    ]
    if len(found) != 1:
        raise ValueError(f"{module.__name__} must hold one class under @method, and holds {len(found)}")
    return found[0]
