r"""From a raw row in any of the known forms to a :class:`~align.data.rows.Row`.

``preference`` reads these, by what the cells hold:

====================  ====================  ==================================================================
prompt                chosen and rejected   what is made of it
====================  ====================  ==================================================================
text                  text                  plain text, taken as it is
absent                text                  plain text; the prompt is the start they share (:func:`shared_start`)
turns                 turns                 a conversation
absent                turns                 a conversation; the prompt is the leading turns they share
text                  turns                 a conversation; the text is a user turn, in front or already there
turns                 text                  a conversation; each completion is an assistant turn
====================  ====================  ==================================================================

``hh`` reads transcripts (``\n\nHuman: ... \n\nAssistant: ...``) as conversations; a ``prompt`` column, if
there is one, stands in front of both. ``auto`` takes a row as ``hh`` where there is no prompt and both sides begin
as transcripts do, else as ``preference``.

Optional columns: ``weight``, a positive number; ``chosen_ended`` and ``rejected_ended``, false where a completion was
cut off by a limit, so that nothing closes it (:mod:`align.data.template`); ``tools``, a list of JSON schemas (or the
same as JSON text), and ``chat_template_kwargs``, a mapping, both for the chat template. A row with pictures, sound or
video is refused: leaving them out would change what it asks.
"""

import json
import math
from collections.abc import Mapping
from typing import Any, Literal

from align.data.rows import Message, Row, RowError, Text, is_encodable, says_nothing
from align.data.turns import (
    Conversation,
    check_order,
    is_transcript,
    read_transcript,
    read_turns,
    schemas,
    split_given_prompt,
    split_shared_turns,
)
from align.objectives.registry import did_you_mean

Form = Literal["auto", "preference", "hh"]

OTHER_MEDIA = ("images", "image", "videos", "video", "audio", "audios")

LIKELY_PROMPTS = ("question", "instruction", "query", "input", "problem")
"""Columns that hold the prompt in published data under another name."""


def to_row(raw: Mapping[str, Any], where: str, form: Form = "auto") -> Row:
    """Make a row of raw columns; columns it does not know are left alone.

    Args:
        raw: ``chosen``, ``rejected`` and perhaps ``prompt``, ``weight`` and the like; None counts as absent.
        where: its place, for errors.
        form: as in a recipe's ``format``.

    Raises:
        RowError: if a column is missing or of the wrong type, a completion is empty, both are the same, turns
            have unknown roles or stand in the wrong order, or the weight is not a positive number.
    """
    _refuse_other_media(raw, where)
    prompt = raw.get("prompt")
    chosen, rejected = (_required(raw, column, where) for column in ("chosen", "rejected"))
    transcript = form == "hh" or (
        form == "auto" and prompt is None and is_transcript(chosen) and is_transcript(rejected)
    )
    parts: tuple[Text, Text, Text]
    if transcript:
        parts = _from_transcripts(prompt, chosen, rejected, where)
    elif isinstance(chosen, str) and isinstance(rejected, str):
        parts = _from_texts(raw, prompt, chosen, rejected, where)
    else:
        parts = _from_turns(prompt, chosen, rejected, where)
    row = Row(
        prompt=parts[0],
        chosen=parts[1],
        rejected=parts[2],
        weight=weight_of(raw, where),
        chosen_ended=_ended(raw, "chosen_ended", where),
        rejected_ended=_ended(raw, "rejected_ended", where),
        tools=tuple(schemas(raw["tools"], where, "tools", "")) if raw.get("tools") else (),
        template_settings=_template_settings(raw, where),
        where=where,
    )
    _check(row, may_say_nothing=transcript)
    return row


def shared_start(chosen: str, rejected: str) -> str:
    r"""Return the start that two texts share, up to the last word both have whole.

    One space before the words that differ belongs to the completions, as tokenizers would have it; line breaks
    and further spaces belong to the prompt. Where the differing words begin with different letters this is TRL's
    rule too; where they share letters, TRL cuts inside the word and this does not.

    Examples:
        >>> shared_start("The sky is blue.", "The sky is black.")
        'The sky is'
        >>> shared_start("Answer:\nyes", "Answer:\nno")
        'Answer:\n'
    """
    end = next((i for i, (a, b) in enumerate(zip(chosen, rejected, strict=False)) if a != b), None)
    end = min(len(chosen), len(rejected)) if end is None else end
    if chosen[end : end + 1].isspace() and rejected[end : end + 1].isspace():
        return chosen[:end]
    while end and not chosen[end - 1].isspace():
        end -= 1
    return chosen[: end - 1] if chosen[:end].endswith(" ") else chosen[:end]


def _from_texts(raw: Mapping[str, Any], prompt: Any, chosen: str, rejected: str, where: str) -> tuple[Text, Text, Text]:
    if prompt is None:
        return _without_prompt(raw, chosen, rejected, where)
    if isinstance(prompt, str):
        return prompt, chosen, rejected
    answers = [Message(role="assistant", content=chosen)], [Message(role="assistant", content=rejected)]
    return _ordered((read_turns(prompt, where, "prompt"), *answers), where)


def _without_prompt(raw: Mapping[str, Any], chosen: str, rejected: str, where: str) -> tuple[str, str, str]:
    if chosen == rejected:
        raise RowError("same", "chosen and rejected are the same", where=where, fix="remove the row")
    prompt = shared_start(chosen, rejected)
    for column in LIKELY_PROMPTS:
        if isinstance(raw.get(column), str) and raw[column].strip() not in prompt:
            fix = f"map it: columns: {{prompt: {column}}}"
            raise RowError("missing", f"there is no column 'prompt', but {column!r}", where=where, fix=fix)
    if not prompt.strip():
        raise RowError(
            "missing",
            "there is no column 'prompt', and chosen and rejected share no start that could be it",
            where=where,
            fix="name the prompt's column in 'columns', or give an empty prompt",
        )
    return prompt, chosen[len(prompt) :], rejected[len(prompt) :]


def _from_turns(prompt: Any, chosen: Any, rejected: Any, where: str) -> Conversation:
    sides = read_turns(chosen, where, "chosen"), read_turns(rejected, where, "rejected")
    if prompt is None:
        return _ordered(split_shared_turns(*sides, where), where)
    return _ordered(split_given_prompt(prompt, *sides, where), where)


def _from_transcripts(prompt: Any, chosen: Any, rejected: Any, where: str) -> Conversation:
    if prompt is not None and not all(isinstance(text, str) for text in (prompt, chosen, rejected)):
        problem = "must be a transcript, like chosen and rejected"
        raise RowError("wrong_type", problem, where=where, column="prompt")
    sides = [text if prompt is None else prompt + text for text in (chosen, rejected)]
    return split_shared_turns(
        read_transcript(sides[0], where, "chosen"), read_transcript(sides[1], where, "rejected"), where
    )


def _ordered(parts: Conversation, where: str) -> Conversation:
    check_order(*parts, where)
    return parts


def _required(raw: Mapping[str, Any], column: str, where: str) -> Any:
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
    given = raw.get("weight")
    if given is None or given == "":
        return 1.0
    try:
        weight = math.nan if isinstance(given, bool) else float(given)
    except (TypeError, ValueError, OverflowError):
        weight = math.nan
    if not (weight > 0 and math.isfinite(weight)):
        raise RowError("bad_weight", f"must be a positive number, got {given!r}", where=where, column="weight")
    return weight


def _ended(raw: Mapping[str, Any], column: str, where: str) -> bool:
    given = raw.get(column)
    known = {None: True, True: True, False: False, "true": True, "false": False}
    key = given.lower() if isinstance(given, str) else given
    if not isinstance(key, str | bool | None) or key not in known:
        raise RowError("wrong_type", f"must be true or false, got {given!r}", where=where, column=column)
    return known[key]


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


def _refuse_other_media(raw: Mapping[str, Any], where: str) -> None:
    for column in OTHER_MEDIA:
        if raw.get(column) is not None and raw[column] != []:
            problem = "holds what a language model of text cannot be trained on"
            raise RowError("wrong_type", problem, where=where, column=column, fix="use rows of text")


def _check(row: Row, *, may_say_nothing: bool) -> None:
    for column, text in (("prompt", row.prompt), ("chosen", row.chosen), ("rejected", row.rejected)):
        if not is_encodable(text):
            raise RowError("not_utf8", "holds half a character (a lone surrogate)", where=row.where, column=column)
    for column, side in (("chosen", row.chosen), ("rejected", row.rejected)):
        if says_nothing(side) and not may_say_nothing:
            raise RowError("empty", "is empty", where=row.where, column=column, fix="remove the row")
    if row.chosen == row.rejected:
        raise RowError("same", "chosen and rejected are the same", where=row.where, fix="remove the row")
