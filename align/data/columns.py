"""Columns that rows of every form may have: weight, scores, labels, tools, and what is refused whatever the form."""

import json
import math
from collections.abc import Mapping
from typing import Any, TypedDict

from align.data.rows import PromptRow, RowError, is_encodable, says_nothing
from align.data.turns import schemas
from align.objectives.registry import did_you_mean

OTHER_MEDIA = ("images", "image", "videos", "video", "audio", "audios")

LIKELY_PROMPTS = ("question", "instruction", "query", "input", "problem")
"""Columns that hold the prompt in published data under another name."""


class SharedColumns(TypedDict):
    """What :class:`~align.data.rows.PromptRow` takes from columns that mean the same in every form."""

    weight: float
    tools: tuple[Mapping[str, Any], ...]
    template_settings: Mapping[str, Any]
    where: str


def shared_columns(raw: Mapping[str, Any], where: str) -> SharedColumns:
    """Read the columns that mean the same in every form.

    Raises:
        RowError: if one of them holds what it cannot.
    """
    return SharedColumns(
        weight=weight_of(raw, where),
        tools=tuple(schemas(raw["tools"], where, "tools", "")) if raw.get("tools") else (),
        template_settings=_template_settings(raw, where),
        where=where,
    )


def there(raw: Mapping[str, Any], column: str) -> bool:
    """Return whether a row has something in a column; null is nothing, and so is an empty cell of a CSV file."""
    return raw.get(column) is not None and raw[column] != ""


def required(raw: Mapping[str, Any], column: str, where: str) -> Any:
    """Return the cell of a column that must be there.

    Raises:
        RowError: if it is not, or is null.
    """
    if raw.get(column) is None:
        if column in raw:
            raise RowError("missing", "is null", where=where, column=column, fix="remove the row")
        near = did_you_mean(column, [name for name in raw if raw[name] is not None])
        problem = f"there is no column {column!r}{near}"
        raise RowError("missing", problem, where=where, fix="name the column in 'columns'")
    return raw[column]


def weight_of(raw: Mapping[str, Any], where: str) -> float:
    """Return the weight of a row, 1 where it states none; text that reads as a number is one, for CSV.

    Raises:
        RowError: if it is not a positive, finite number.
    """
    if not there(raw, "weight"):
        return 1.0
    given = raw["weight"]
    weight = _number(given)
    if weight is None or not (weight > 0 and math.isfinite(weight)):
        raise RowError("bad_weight", f"must be a positive number, got {given!r}", where=where, column="weight")
    return weight


def score_of(raw: Mapping[str, Any], column: str, where: str) -> float:
    """Return the score of a completion, NaN where the row states none; text that reads as a number is one, for CSV.

    Raises:
        RowError: if it is not a finite number.
    """
    if not there(raw, column):
        return math.nan
    given = raw[column]
    score = _number(given)
    if score is None or math.isinf(score):
        fix = "write a number, or leave it out where there is no score"
        raise RowError("wrong_type", f"must be a finite number, got {given!r}", where=where, column=column, fix=fix)
    return score


def ended_of(raw: Mapping[str, Any], column: str, where: str) -> bool:
    """Return whether a completion came to its end, true where the row does not say.

    Raises:
        RowError: if it is neither true nor false.
    """
    given = raw.get(column)
    known = {None: True, True: True, False: False, "true": True, "false": False}
    key = given.lower() if isinstance(given, str) else given
    if not isinstance(key, str | bool | None) or key not in known:
        raise RowError("wrong_type", f"must be true or false, got {given!r}", where=where, column=column)
    return known[key]


def label_of(raw: Mapping[str, Any], column: str, where: str) -> bool:
    """Return whether a completion is desirable; 1 and 0, and the words as text, mean the same, for CSV.

    Raises:
        RowError: if the row does not say, or says something else.
    """
    fix = "write true where the completion is desirable, false where it is not"
    if not there(raw, column):
        problem = "is empty" if column in raw else "is not there"
        raise RowError("missing", problem, where=where, column=column, fix=f"{fix}, or name the column in 'columns'")
    given = raw[column]
    known = {True: True, False: False, "true": True, "false": False, "1": True, "0": False}
    key = given.strip().lower() if isinstance(given, str) else given
    if not isinstance(key, str | bool | int | float) or key not in known:
        raise RowError("wrong_type", f"must be true or false, got {given!r}", where=where, column=column, fix=fix)
    return known[key]


def refuse_other_prompt(raw: Mapping[str, Any], where: str, *, known: str = "") -> None:
    """Refuse a row without prompt that has one under another name.

    Args:
        raw: columns, without ``prompt``.
        where: place of the row.
        known: text in which the other column's may stand already.

    Raises:
        RowError: naming the other column.
    """
    for column in LIKELY_PROMPTS:
        if isinstance(raw.get(column), str) and raw[column].strip() not in known:
            fix = f"map it: columns: {{prompt: {column}}}"
            raise RowError("missing", f"there is no column 'prompt', but {column!r}", where=where, fix=fix)


def refuse_other_media(raw: Mapping[str, Any], where: str) -> None:
    """Refuse a row with pictures, sound or video.

    Raises:
        RowError: naming the column.
    """
    for column in OTHER_MEDIA:
        if raw.get(column) is not None and raw[column] != []:
            problem = "holds what a language model of text cannot be trained on"
            raise RowError("wrong_type", problem, where=where, column=column, fix="use rows of text")


def refuse_broken_texts(row: PromptRow[Any], *, may_say_nothing: bool) -> None:
    """Refuse a row whose texts cannot be written as UTF-8, or a completion of which is empty.

    Raises:
        RowError: naming the column.
    """
    for column, text in {"prompt": row.prompt, **row.completions}.items():
        if not is_encodable(text):
            raise RowError("not_utf8", "holds half a character (a lone surrogate)", where=row.where, column=column)
    for column, text in row.completions.items():
        if says_nothing(text) and not may_say_nothing:
            raise RowError("empty", "is empty", where=row.where, column=column, fix="remove the row")


def _number(given: Any) -> float | None:
    try:
        return None if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        return None


def _template_settings(raw: Mapping[str, Any], where: str) -> Mapping[str, Any]:
    given = raw.get("chat_template_kwargs") or {}
    if isinstance(given, str):
        try:
            given = json.loads(given)
        except json.JSONDecodeError:
            given = None
    if not isinstance(given, Mapping):
        raise RowError("wrong_type", "must be a mapping", where=where, column="chat_template_kwargs")
    return {key: value for key, value in given.items() if value is not None}
