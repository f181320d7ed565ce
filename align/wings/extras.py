"""Packages that only the wings need: the extra they come with is named where one is missing."""

from importlib import import_module
from typing import Any

EXTRA = "wings"


def needed(module: str, *, extra: str = EXTRA) -> Any:
    """Import a module of an optional package.

    Raises:
        ValueError: the package is missing, with the line that installs it.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        package = (error.name or module).partition(".")[0]
        if package != module.partition(".")[0]:
            raise
        raise ValueError(f"this needs the package {package!r}: pip install 'align[{extra}]'") from error
