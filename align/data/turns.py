"""Conversations: reading turns, transcripts, and telling a shared prompt from two completions of it."""

import re
from collections.abc import Mapping
from typing import Any

from align.data.rows import DataError, Message

ROLES = ("system", "user", "assistant")
OTHER_NAMES = {"human": "user", "prompter": "user", "gpt": "assistant", "bot": "assistant", "model": "assistant"}
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
MARKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")

Conversation = tuple[list[Message], list[Message], list[Message]]
"""Prompt, chosen, rejected."""


def read_turns(value: Any, where: str, column: str) -> list[Message]:
    """Return a cell as turns: a list of ``{role, content}``, one such turn, or a dict of two equally long lists.

    Raises:
        DataError: if it is none of these, is empty, or a turn has another role or content that is no text.
    """
    if isinstance(value, Mapping):
        value = _from_columns(value) or [dict(value)]
    if not isinstance(value, list) or not value:
        raise DataError(f"must be turns, got {_kind(value)}", where=where, column=column)
    return [_read_turn(turn, where, column) for turn in value]


def read_transcript(text: Any, where: str, column: str) -> list[Message]:
    r"""Return a transcript as turns, its words unchanged but for the one space after each marker.

    A turn begins with ``Human:`` or ``Assistant:`` at the start or after an empty line. Text before the first
    marker is a system turn. An assistant that says nothing is kept: the published data has such rows.

    Raises:
        DataError: if there is no marker, or the last turn is not the assistant's.

    Examples:
        >>> read_transcript("\n\nHuman: Hi\n\nAssistant: Hello", "a:1", "chosen")
        [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    if not isinstance(text, str):
        raise DataError(f"must be a transcript, got {_kind(text)}", where=where, column=column)
    before, *rest = MARKER.split(text)
    turns = [Message(role="system", content=before.strip())] if before.strip() else []
    for speaker, words in zip(rest[::2], rest[1::2], strict=True):
        turns.append(Message(role=SPEAKERS[speaker], content=words.removeprefix(" ")))
    if not rest or turns[-1]["role"] != "assistant":
        raise DataError("must be a transcript that ends with an 'Assistant:' turn", where=where, column=column)
    return turns


def is_transcript(value: Any) -> bool:
    r"""Return whether a cell is a transcript beyond doubt: it starts with ``\n\nHuman:`` and has an assistant."""
    return isinstance(value, str) and value.startswith("\n\nHuman:") and "\n\nAssistant:" in value


def split_shared_turns(chosen: list[Message], rejected: list[Message], where: str) -> Conversation:
    """Split two whole conversations: their common leading turns are the prompt, the rest are the completions.

    Where they part before the last turn, a completion has several turns and all of them count as completion.

    Raises:
        DataError: if they are equal, part at a turn that is not the assistant's on both sides, or share nothing.
    """
    if chosen == rejected:
        raise DataError("chosen and rejected are the same", where=where, fix="remove the row")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise DataError(
            "chosen and rejected share no first turn that could be the prompt",
            where=where,
            fix="name the prompt's column in 'columns'",
        )
    sides = chosen[shared:], rejected[shared:]
    if not all(side and side[0]["role"] == "assistant" for side in sides):
        raise DataError(
            "chosen and rejected answer different prompts: before the turns that differ comes the assistant's on "
            "both sides",
            where=where,
            fix="make the turns before the answer the same, or remove the row",
        )
    return chosen[:shared], *sides


def split_given_prompt(prompt: Any, chosen: list[Message], rejected: list[Message], where: str) -> Conversation:
    """Split turns where the prompt is given as well, as text or as turns.

    The completions may come alone, or each as the whole conversation with the prompt in front.

    Raises:
        DataError: if whole conversations do not hold the prompt.
    """
    alone = [side[0]["role"] == "assistant" for side in (chosen, rejected)]
    if isinstance(prompt, str):
        if all(alone):
            return [Message(role="user", content=prompt)], chosen, rejected
        parts = split_shared_turns(chosen, rejected, where)
        asked = {" ".join(turn["content"].split()) for turn in parts[0] if turn["role"] == "user"}
        if " ".join(prompt.split()) not in asked:
            raise DataError("is no user turn of both chosen and rejected", where=where, column="prompt")
        return parts
    turns = read_turns(prompt, where, "prompt")
    if all(alone):
        return turns, chosen, rejected
    if chosen[: len(turns)] != turns or rejected[: len(turns)] != turns:
        raise DataError("is not how chosen and rejected begin", where=where, column="prompt")
    return turns, chosen[len(turns) :], rejected[len(turns) :]


def check_order(prompt: list[Message], chosen: list[Message], rejected: list[Message], where: str) -> None:
    """Check that turns stand in an order that can be trained on.

    Raises:
        DataError: if there is no prompt, it ends with no user turn, a completion does not begin and end with the
            assistant, or a system turn is not the first.
    """
    if not prompt or prompt[-1]["role"] != "user":
        raise DataError("must end with a user turn", where=where, column="prompt")
    for column, side in (("chosen", chosen), ("rejected", rejected)):
        if not side or side[0]["role"] != "assistant" or side[-1]["role"] != "assistant":
            raise DataError("must begin and end with an assistant turn, after the prompt", where=where, column=column)
    if any(turn["role"] == "system" for turn in [*prompt[1:], *chosen, *rejected]):
        raise DataError("a system turn must be the first of the prompt", where=where)


def _from_columns(turns: Mapping[str, Any]) -> list[dict[str, Any]]:
    roles, contents = turns.get("role"), turns.get("content")
    if not isinstance(roles, list) or not isinstance(contents, list) or len(roles) != len(contents):
        return []
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def _read_turn(turn: Any, where: str, column: str) -> Message:
    if not isinstance(turn, Mapping) or not isinstance(turn.get("content"), str):
        raise DataError("must have turns {role, content} whose content is text", where=where, column=column)
    if turn.get("tool_calls"):
        raise DataError("has tool calls, which are not read", where=where, column=column)
    role = turn.get("role")
    if role not in ROLES:
        better = OTHER_NAMES.get(str(role))
        fix = f"write {better!r}" if better else f"known roles: {', '.join(ROLES)}"
        raise DataError(f"has a turn with the role {role!r}", where=where, column=column, fix=fix)
    return Message(role=str(role), content=turn["content"])


def _kind(value: Any) -> str:
    return "nothing" if value is None or value == [] else type(value).__name__
