r"""From a raw row to single completions, each desirable or not: :class:`~align.data.rows.UnpairedRow`.

A row is one completion with its ``label`` (true for a desirable one), read by what the cells hold:

====================  ====================  ==================================================================
prompt                completion            what is made of it
====================  ====================  ==================================================================
text                  text                  plain text, taken as it is
turns                 turns                 a conversation
absent                turns                 a conversation; the completion is its last turn
text                  turns                 a conversation; the text is a user turn, in front or already there
turns                 text                  a conversation; the completion is an assistant turn
absent                a transcript          Anthropic's HH form; the completion is its last turn
====================  ====================  ==================================================================

A pair, in any form of :mod:`align.data.formats`, is taken apart: its chosen completion is desirable, the other is not.
Optional columns are those of pairs, with ``completion_ended`` for a completion that was cut off by a limit.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from align.data.columns import (
    ended_of,
    label_of,
    refuse_broken_texts,
    refuse_other_media,
    refuse_other_prompt,
    required,
    shared_columns,
    there,
)
from align.data.formats import Form, to_row
from align.data.rows import Message, Row, RowError, Text, UnpairedRow, side_of
from align.data.turns import check_order, is_transcript, read_transcript, read_turns, split_completion

SINGLE = ("completion", "label")
PAIR = ("chosen", "rejected")


def is_single(raw: Mapping[str, Any]) -> bool:
    """Return whether a row is beyond doubt a single completion: it has a completion and a label, and no pair."""
    return all(there(raw, column) for column in SINGLE) and not any(there(raw, column) for column in PAIR)


def to_unpaired(raw: Mapping[str, Any], where: str, form: Form = "auto") -> list[UnpairedRow]:
    """Make single completions of raw columns: one, or the two of a pair; columns it does not know are left alone.

    Args:
        raw: ``prompt``, ``completion`` and ``label``, or a pair; None counts as absent.
        where: its place, for errors.
        form: as in a recipe's ``format``.

    Raises:
        RowError: as for pairs; or if the label is missing or neither true nor false, or the row is both a single
            completion and a pair.
    """
    single, pair = ([column for column in columns if there(raw, column)] for columns in (SINGLE[:1], PAIR))
    if single and pair:
        raise RowError(
            "wrong_type",
            f"the row is both a single completion and a pair: it has columns {', '.join([*single, *pair])}",
            where=where,
            fix="leave 'completion' and 'label' in it, or 'chosen' and 'rejected'",
        )
    if pair or (not single and "chosen" in raw):
        return take_apart(to_row(raw, where, form))
    return [_single(raw, where, form)]


def take_apart(row: Row) -> list[UnpairedRow]:
    """Return the completions of a pair, the desirable one first; both have its prompt and its weight."""
    return [
        UnpairedRow(
            prompt=row.prompt,
            completion=completion,
            desirable=desirable,
            completion_ended=ended,
            weight=row.weight,
            tools=row.tools,
            template_settings=row.template_settings,
            where=side_of(row.where, desirable),
        )
        for completion, ended, desirable in zip(row.completions.values(), row.ended, (True, False), strict=True)
    ]


class _Parts(NamedTuple):
    prompt: Text
    completion: Text


def _single(raw: Mapping[str, Any], where: str, form: Form) -> UnpairedRow:
    refuse_other_media(raw, where)
    completion, prompt = required(raw, "completion", where), raw.get("prompt")
    desirable = label_of(raw, "label", where)
    transcript = form == "hh" or (form == "auto" and prompt is None and is_transcript(completion))
    if transcript:
        parts = _from_transcript(prompt, completion, where)
    elif isinstance(completion, str):
        parts = _from_text(raw, prompt, completion, where)
    else:
        parts = _ordered(*split_completion(prompt, read_turns(completion, where, "completion"), where), where)
    row = UnpairedRow(
        prompt=parts.prompt,
        completion=parts.completion,
        desirable=desirable,
        completion_ended=ended_of(raw, "completion_ended", where),
        **shared_columns(raw, where),
    )
    refuse_broken_texts(row, may_say_nothing=transcript)
    return row


def _from_text(raw: Mapping[str, Any], prompt: Any, completion: str, where: str) -> _Parts:
    if prompt is None:
        refuse_other_prompt(raw, where)
        fix = "name the prompt's column in 'columns', or give an empty prompt"
        raise RowError("missing", "there is no column 'prompt'", where=where, fix=fix)
    if isinstance(prompt, str):
        return _Parts(prompt, completion)
    answer = [Message(role="assistant", content=completion)]
    return _ordered(read_turns(prompt, where, "prompt"), answer, where)


def _from_transcript(prompt: Any, completion: Any, where: str) -> _Parts:
    if prompt is not None and not (isinstance(prompt, str) and isinstance(completion, str)):
        problem = "must be a transcript, like the completion"
        raise RowError("wrong_type", problem, where=where, column="prompt")
    turns = read_transcript(completion if prompt is None else prompt + completion, where, "completion")
    if len(turns) == 1:
        problem = "must be a transcript with a turn before the last one, which is the prompt"
        raise RowError("role_order", problem, where=where, column="completion")
    return _Parts(turns[:-1], turns[-1:])


def _ordered(prompt: list[Message], completion: list[Message], where: str) -> _Parts:
    check_order(prompt, {"completion": completion}, where)
    return _Parts(prompt, completion)
