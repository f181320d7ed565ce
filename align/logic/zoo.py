"""The registered objectives as structures: a table made by tracing their code, kept so that reading it needs no torch.

``align logic zoo --write`` makes it anew; CI compares.
"""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

TABLE = "zoo.json"


@cache
def table() -> dict[str, dict[str, Any]]:
    """Return the kept table: for each registered objective what it means, by name."""
    text = files("align.logic").joinpath(TABLE).read_text(encoding="utf-8")
    return {entry["name"]: entry for entry in json.loads(text)}


def traced() -> list[dict[str, Any]]:
    """Return the table, by tracing the code of every registered objective with its default settings."""
    from align.objectives.registry import OBJECTIVES

    return [entry(name) for name in OBJECTIVES]


def entry(name: str, **settings: Any) -> dict[str, Any]:
    """Return what an objective with some settings means, as plain data."""
    from align.logic.decompile import decompile
    from align.logic.trace import TraceError
    from align.objectives.registry import OBJECTIVES

    card = OBJECTIVES.card(name)
    known = {"name": name, "title": card.title, "aliases": OBJECTIVES.aliases(name), "source": card.source}
    try:
        return {**known, **plain(decompile(OBJECTIVES.build(name, **_as_declared(name, settings))))}
    except TraceError as error:
        return {**known, "outcome": "refused", "stripped": [], "parts": [_refused(str(error))]}


def _as_declared(name: str, settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with whole numbers as the numbers that the objective has there."""
    from dataclasses import fields

    from align.objectives.registry import OBJECTIVES

    numbers = {f.name for f in fields(OBJECTIVES[name]) if isinstance(f.default, float)}  # type: ignore[arg-type]
    return {k: float(v) if k in numbers and type(v) is int else v for k, v in settings.items()}


def plain(decompiled: Any) -> dict[str, Any]:
    """Return a loss taken apart as plain data; rows of a truth table are hexadecimal numbers."""
    return {
        "outcome": decompiled.outcome,
        "stripped": list(decompiled.stripped),
        "parts": [_part(part) for part in decompiled.parts],
    }


def _part(part: Any) -> dict[str, Any]:
    from align.logic.decompile import facts
    from align.logic.symbols import spelled

    reading = part.reading
    found = {
        "role": part.role,
        "link": part.link,
        "decreasing": part.decreasing,
        "weight": part.weight,
        "case": part.case,
        "score": part.text,
        "refusal": part.refusal,
        "facts": facts(part),
    }
    if reading is None:
        return found
    return found | {
        "scale": spelled(reading.scale),
        "margin": spelled(reading.margin),
        "normalised": reading.normalised,
        "atoms": [atom.name for atom in reading.structure.atoms],
        "top": f"{reading.structure.top:x}",
        "bottom": f"{reading.structure.bottom:x}",
    }


def _refused(why: str) -> dict[str, Any]:
    return {"role": "core", "link": "other", "decreasing": None, "weight": "1", "case": "", "score": "", "refusal": why}


def written(entries: list[dict[str, Any]]) -> str:
    """Return the table as the text of its file."""
    return json.dumps(entries, indent=1, ensure_ascii=False) + "\n"


def write(path: Path | None = None) -> Path:
    """Trace every objective and keep the table; return its file."""
    target = path or Path(str(files("align.logic").joinpath(TABLE)))
    target.write_text(written(traced()), encoding="utf-8")
    return target
