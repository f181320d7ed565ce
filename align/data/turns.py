"""Conversations: reading turns, transcripts, and telling a shared prompt from two completions of it."""

import json
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any, cast

from align.data.rows import Message, RowError

ROLES = ("system", "user", "assistant", "tool")
OTHER_NAMES = {
    "human": "user",
    "prompter": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "function": "tool",
    "observation": "tool",
}
EXTRAS = ("tool_calls", "tool_call_id", "name", "reasoning_content", "thinking")
"""What a turn may hold besides role and content, handed to the chat template; other keys are left alone."""
SPEAKERS = {"Human": "user", "Assistant": "assistant"}
MARKER = re.compile(r"(?:\A|\n\n)(Human|Assistant):")

Conversation = tuple[list[Message], list[Message], list[Message]]
"""Prompt, chosen, rejected."""


def read_turns(value: Any, where: str, column: str) -> list[Message]:
    """Return a cell as turns: a list of ``{role, content}``, one such turn, or a dict of two equally long lists.

    Raises:
        RowError: if it is none of these, is empty, or a turn has another role or content that is no text.
    """
    if isinstance(value, Mapping):
        value = _from_columns(value) or [dict(value)]
    if not isinstance(value, list) or not value:
        kind: Any = "empty" if value == [] else "wrong_type"
        raise RowError(kind, f"must be turns, got {_kind(value)}", where=where, column=column)
    return [_read_turn(turn, where, column) for turn in value]


def read_transcript(text: Any, where: str, column: str) -> list[Message]:
    r"""Return a transcript as turns, its words unchanged but for the one space after each marker.

    A turn begins with ``Human:`` or ``Assistant:`` at the start or after an empty line. Text before the first
    marker is a system turn. An assistant that says nothing is kept: the published data has such rows.

    Raises:
        RowError: if there is no marker, or the last turn is not the assistant's.

    Examples:
        >>> read_transcript("\n\nHuman: Hi\n\nAssistant: Hello", "a:1", "chosen")
        [{'role': 'user', 'content': 'Hi'}, {'role': 'assistant', 'content': 'Hello'}]
    """
    if not isinstance(text, str):
        raise RowError("wrong_type", f"must be a transcript, got {_kind(text)}", where=where, column=column)
    before, *rest = MARKER.split(text)
    turns = [Message(role="system", content=before.strip())] if before.strip() else []
    for speaker, words in zip(rest[::2], rest[1::2], strict=True):
        turns.append(Message(role=SPEAKERS[speaker], content=words.removeprefix(" ")))
    if not rest or turns[-1]["role"] != "assistant":
        problem = "must be a transcript that ends with an 'Assistant:' turn"
        raise RowError("role_order", problem, where=where, column=column)
    return turns


def is_transcript(value: Any) -> bool:
    r"""Return whether a cell is a transcript beyond doubt: it starts with ``\n\nHuman:`` and has an assistant."""
    return isinstance(value, str) and value.startswith("\n\nHuman:") and "\n\nAssistant:" in value


def split_shared_turns(chosen: list[Message], rejected: list[Message], where: str) -> Conversation:
    """Split two whole conversations: their common leading turns are the prompt, the rest are the completions.

    Where they part before the last turn, a completion has several turns and all of them count as completion.

    Raises:
        RowError: if they are equal, part at a turn that is not the assistant's on both sides, or share nothing.
    """
    if chosen == rejected:
        raise RowError("same", "chosen and rejected are the same", where=where, fix="remove the row")
    shared = 0
    while shared < min(len(chosen), len(rejected)) and chosen[shared] == rejected[shared]:
        shared += 1
    if not shared:
        raise RowError(
            "prompts_differ",
            "chosen and rejected share no first turn that could be the prompt",
            where=where,
            fix="remove the row, or name the prompt's column in 'columns'",
        )
    sides = chosen[shared:], rejected[shared:]
    if not all(side and side[0]["role"] == "assistant" for side in sides):
        raise RowError(
            "prompts_differ",
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
        RowError: if whole conversations do not hold the prompt.
    """
    alone = [side[0]["role"] == "assistant" for side in (chosen, rejected)]
    if isinstance(prompt, str):
        if all(alone):
            return [Message(role="user", content=prompt)], chosen, rejected
        parts = split_shared_turns(chosen, rejected, where)
        asked = {" ".join(turn["content"].split()) for turn in parts[0] if turn["role"] == "user"}
        if " ".join(prompt.split()) not in asked:
            problem = "is no user turn of both chosen and rejected"
            raise RowError("prompts_differ", problem, where=where, column="prompt")
        return parts
    turns = read_turns(prompt, where, "prompt")
    if all(alone):
        return turns, chosen, rejected
    if chosen[: len(turns)] != turns or rejected[: len(turns)] != turns:
        raise RowError("prompts_differ", "is not how chosen and rejected begin", where=where, column="prompt")
    return turns, chosen[len(turns) :], rejected[len(turns) :]


def split_completion(prompt: Any, turns: list[Message], where: str) -> tuple[list[Message], list[Message]]:
    """Split the turns of a single completion from its prompt.

    The completion may come alone, or as the whole conversation with the prompt in front. Without a prompt it is the
    last turn; behind a prompt that is text, everything after the last user turn that says it.

    Raises:
        RowError: if a whole conversation does not hold the prompt.
    """
    if prompt is None:
        return turns[:-1], turns[-1:]
    alone = turns[0]["role"] == "assistant"
    if isinstance(prompt, str):
        if alone:
            return [Message(role="user", content=prompt)], turns
        asked = [
            number
            for number, turn in enumerate(turns, 1)
            if turn["role"] == "user" and turn["content"].split() == prompt.split()
        ]
        if not asked:
            raise RowError("prompts_differ", "is no user turn of the completion", where=where, column="prompt")
        return turns[: asked[-1]], turns[asked[-1] :]
    given = read_turns(prompt, where, "prompt")
    if alone:
        return given, turns
    if turns[: len(given)] != given:
        raise RowError("prompts_differ", "is not how the completion begins", where=where, column="prompt")
    return given, turns[len(given) :]


def check_order(prompt: list[Message], completions: Mapping[str, list[Message]], where: str) -> None:
    """Check that turns stand in an order that can be trained on.

    Args:
        prompt: turns before the completions.
        completions: turns of each, by the name of its column.
        where: place of the row.

    Raises:
        RowError: if there is no prompt, it ends with neither a user's nor a tool's turn, a completion does not begin
            and end with the assistant, a system turn is not the first, or a tool answers nobody.
    """

    def refuse(problem: str, column: str = "") -> None:
        raise RowError("role_order", problem, where=where, column=column)

    if not prompt or prompt[-1]["role"] not in ("user", "tool"):
        refuse("must end with a user turn (or a tool's)", "prompt")
    for column, side in completions.items():
        if not side or side[0]["role"] != "assistant" or side[-1]["role"] != "assistant":
            refuse("must begin and end with an assistant turn, after the prompt", column)
    if any(turn["role"] == "system" for turn in chain(prompt[1:], *completions.values())):
        refuse("a system turn must be the first of the prompt")
    for column, turns in {"prompt": prompt, **completions}.items():
        before = [None, *(turn["role"] for turn in turns)]
        if any(
            turn["role"] == "tool" and last not in ("assistant", "tool")
            for last, turn in zip(before, turns, strict=False)
        ):
            refuse("has a tool turn that follows no assistant turn", column)


def _from_columns(turns: Mapping[str, Any]) -> list[dict[str, Any]]:
    roles, contents = turns.get("role"), turns.get("content")
    if not isinstance(roles, list) or not isinstance(contents, list) or len(roles) != len(contents):
        return []
    return [{"role": role, "content": content} for role, content in zip(roles, contents, strict=True)]


def _read_turn(turn: Any, where: str, column: str) -> Message:
    if not isinstance(turn, Mapping):
        raise RowError("wrong_type", "must have turns {role, content}", where=where, column=column)
    role = turn.get("role")
    if isinstance(role, list):
        problem = "must have turns {role, content}; lists of roles and of contents must be equally long"
        raise RowError("wrong_type", problem, where=where, column=column)
    if role not in ROLES:
        raise _unknown_role(role, turn, where, column)
    extras = {key: turn[key] for key in EXTRAS if turn.get(key)}
    if "tool_calls" in extras:
        extras["tool_calls"] = schemas(extras["tool_calls"], where, column, "tool_calls")
    content = _content(turn.get("content"), where, column, may_lack="tool_calls" in extras)
    return cast(Message, {"role": str(role), "content": content, **extras})


def _unknown_role(role: Any, turn: Mapping[str, Any], where: str, column: str) -> RowError:
    if role is None and {"from", "value"} <= turn.keys():
        fix = "write {from, value} as {role, content}"
        return RowError("unknown_role", "has turns in ShareGPT's form", where=where, column=column, fix=fix)
    better = OTHER_NAMES.get(str(role).lower())
    better = str(role).lower() if str(role).lower() in ROLES else better
    fix = f"write {better!r}" if better else f"known roles: {', '.join(ROLES)}"
    return RowError("unknown_role", f"has a turn with the role {role!r}", where=where, column=column, fix=fix)


def _content(value: Any, where: str, column: str, *, may_lack: bool) -> str:
    """Return what a turn says: text, or parts that are all text, one after the other."""
    if value is None and may_lack:
        return ""
    if isinstance(value, list) and value:
        kinds = [part.get("type") if isinstance(part, Mapping) else None for part in value]
        if set(kinds) == {"text"}:
            value = "".join(str(part.get("text", "")) for part in value)
        elif others := sorted({str(kind) for kind in kinds} - {"text"}):
            problem = f"has a turn with parts other than text ({', '.join(others)}), which are not trained on"
            raise RowError("wrong_type", problem, where=where, column=column)
    if not isinstance(value, str):
        problem = f"must have turns {{role, content}} whose content is text, got {_kind(value)}"
        raise RowError("wrong_type", problem, where=where, column=column)
    return value


def schemas(value: Any, where: str, column: str, name: str) -> list[dict[str, Any]]:
    """Return tools or tool calls as a list of mappings; JSON text is read, since Arrow holds no mixed mappings.

    Raises:
        RowError: if they are neither.
    """
    given = value
    if isinstance(value, str):
        try:
            given = json.loads(value)
        except json.JSONDecodeError:
            given = None
    given = list(given) if isinstance(given, list | tuple) else given
    if isinstance(given, list):
        given = [
            json.loads(item) if isinstance(item, str) and item.lstrip().startswith("{") else item for item in given
        ]
    if not isinstance(given, list) or not all(isinstance(item, Mapping) for item in given):
        problem = f"{name} must be a list of mappings, or the same as JSON text"
        raise RowError("wrong_type", problem.strip(), where=where, column=column)
    return [_without_nulls(item) for item in given]


def _without_nulls(value: Any) -> Any:
    """Return plain data without the keys that Arrow fills in with null where rows have different ones."""
    if isinstance(value, Mapping):
        return {key: _without_nulls(inner) for key, inner in value.items() if inner is not None}
    return [_without_nulls(inner) for inner in value] if isinstance(value, list) else value


def _kind(value: Any) -> str:
    return "nothing" if value is None or value == [] else type(value).__name__
