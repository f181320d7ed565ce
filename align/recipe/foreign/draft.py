"""A recipe of ours in the making: settings with a word on each, and what could not be brought over."""

from dataclasses import dataclass
from textwrap import wrap
from typing import Any

from align.recipe.resolve import dump

WIDTH = 116
SECTIONS = ("model", "data", "objective", "trainer", "evaluation", "output")


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """A value, where it comes from, and what to know.

    Attributes:
        value: plain data.
        source: their key, or whose default it is.
        note: how it differs from theirs; may be empty.
    """

    value: Any
    source: str = ""
    note: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """Something that is trained differently unless its reader decides.

    Attributes:
        key: their key.
        line: its line, from 1; None where it is about something that the file leaves out.
        text: what it asked for, and why it could not be brought over.
    """

    key: str
    line: int | None
    text: str

    def __str__(self) -> str:
        place = f" (line {self.line})" if self.line else ""
        return f"{self.key}{place}: {self.text}"


class Draft:
    """Settings by our dotted keys, decisions, and reasons.

    Attributes:
        settings: in the order they were made.
        decisions: what changes the training and needs a person.
        left: their keys that have no counterpart and change nothing, with the reason.
    """

    def __init__(self) -> None:
        self.settings: dict[str, Setting] = {}
        self.decisions: list[Decision] = []
        self.left: list[tuple[str, str]] = []

    def set(self, key: str, value: Any, source: str, note: str = "") -> None:
        """Set one of our keys; ``source`` is their key or whose default it is."""
        if key in ("data.train", "data.eval") and isinstance(value, list):
            value = [_without_split(item) for item in value]
        self.settings[key] = Setting(value=value, source=source, note=note)

    def decide(self, key: str, line: int | None, text: str) -> None:
        """Leave a decision to the reader."""
        self.decisions.append(Decision(key=key, line=line, text=text))

    def leave(self, key: str, reason: str) -> None:
        """Leave one of their keys out."""
        self.left.append((key, reason))

    def drop(self, key: str) -> Setting | None:
        """Take back the setting that an error is about: the longest that the dotted key begins with, or begins."""
        near = [name for name in self.settings if key == name or key.startswith(name + ".")]
        found = max(near, key=len, default=None)
        return None if found is None else self.settings.pop(found)

    def render(self, head: list[str]) -> str:
        """Return the recipe as YAML under comment lines."""
        decisions = [line for decision in self.decisions for line in _comment(f"DECIDE: {decision}", indent="  ")]
        parts = ["\n".join([*_comments(head), *decisions])]
        parts += [self._section(name) for name in SECTIONS if self._of(name)]
        if self.left:
            parts.append("\n".join(["# Left out, without changing what is trained:", *self._reasons()]))
        return "\n\n".join(parts) + "\n"

    def _of(self, prefix: str) -> dict[str, Setting]:
        start = prefix + "."
        return {key.removeprefix(start): setting for key, setting in self.settings.items() if key.startswith(start)}

    def _section(self, name: str) -> str:
        lines, nested = [f"{name}:"], set()
        for key, setting in self._of(name).items():
            outer, dot, _ = key.partition(".")
            if not dot:
                lines += _lines(key, setting, "  ")
            elif outer not in nested:  # where its first setting was made; its other settings follow at once
                nested.add(outer)
                inner = [line for k, s in self._of(f"{name}.{outer}").items() for line in _lines(k, s, "    ")]
                lines += _item(inner) if outer.isdigit() else [f"  {outer}:", *inner]
        return "\n".join(lines)

    def _reasons(self) -> list[str]:
        grouped: dict[str, list[str]] = {}
        for key, reason in self.left:
            grouped.setdefault(reason, []).append(key)
        texts = [f"{', '.join(keys)}: {reason}" for reason, keys in grouped.items()]
        return [line for text in texts for line in _comment(text, indent="  ", start="  ")]


def _without_split(source: Any) -> Any:
    """Return a source without its split where it is a data file, which has none here."""
    path = source.get("path") if isinstance(source, dict) else None
    if not str(path).removesuffix(".gz").endswith((".jsonl", ".json", ".csv", ".parquet")):
        return source
    return {key: value for key, value in source.items() if key != "split"}


def _lines(key: str, setting: Setting, indent: str) -> list[str]:
    note = [indent + line for line in _comment(setting.note)] if setting.note else []
    source = f"  # {setting.source}" if setting.source and setting.source != key else ""
    if isinstance(setting.value, list) and any(isinstance(item, dict) for item in setting.value):
        items = [f"{indent}  - {_flow(item)}" for item in setting.value]
        return [*note, f"{indent}{key}:{source}", *items]
    return [*note, f"{indent}{key}: {_flow(setting.value)}{source}"]


def _item(lines: list[str]) -> list[str]:
    """Return a mapping's lines as an item of a list: comments above it, a dash before its first setting."""
    first = next(i for i, line in enumerate(lines) if not line.lstrip().startswith("#"))
    return [*(line[2:] for line in lines[:first]), "  - " + lines[first][4:], *lines[first + 1 :]]


def _flow(value: Any) -> str:
    return dump(value, flow=True).removesuffix("...\n").strip()


def _comments(texts: list[str]) -> list[str]:
    return [line for text in texts for line in _comment(text)]


def _comment(text: str, *, indent: str = "", start: str = "") -> list[str]:
    lines = wrap(" ".join(text.split()), WIDTH, initial_indent=start, subsequent_indent=start + indent)
    return ["# " + line for line in lines] or ["#"]
