"""Where a value of a recipe came from, and the error that says so."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a value was written: a line of a file, an override of the command line, or nowhere (a default).

    Attributes:
        file: path as the user gave it.
        line: line in the file, from 1.
        override: the whole override, ``key=value``.
    """

    file: str | None = None
    line: int | None = None
    override: str | None = None

    def __str__(self) -> str:
        if self.override is not None:
            return "command line"
        if self.file is None:
            return "default"
        return self.file if self.line is None else f"{self.file}:{self.line}"


class RecipeError(ValueError):
    """A recipe that cannot be run, and the place to mend.

    Attributes:
        file: the recipe's file; None for an override or a recipe made in Python.
        line: line in that file, from 1; None where no single line is at fault.
        key: dotted path of the setting; empty for the recipe as a whole.
        message: what is wrong, without the place.
    """

    def __init__(self, message: str, *, key: str = "", origin: Origin = Origin()) -> None:
        self.file = origin.file
        self.line = origin.line
        self.key = key
        self.message = message
        super().__init__(": ".join([*_place(origin), *_subject(key, origin), message]))


class MissingSettingError(RecipeError):
    """A setting without a default that the recipe does not give."""

    def __init__(self, key: str, *, hint: str = "", origin: Origin = Origin()) -> None:
        super().__init__(f"missing: {key}{hint}", origin=origin)
        self.key = key


def _place(origin: Origin) -> list[str]:
    if origin.override is not None:
        return ["command line", origin.override]
    return [] if origin.file is None else [str(origin)]


def _subject(key: str, origin: Origin) -> list[str]:
    said = origin.override is not None and origin.override.partition("=")[0].strip() == key
    return [key] if key and not said else []
