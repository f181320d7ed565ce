"""The forms that every preference row is brought to, and the errors that point at a row."""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Generic, Literal, NotRequired, TypedDict, TypeVar

from align.data.tokens import PromptTokens, TokenPair, UnpairedTokens

Made = TypeVar("Made", bound=PromptTokens)


class Message(TypedDict):
    """A turn of a conversation, as chat templates know it.

    Attributes:
        role: system, user, assistant or tool.
        content: what is said; empty where the turn only calls tools.
        tool_calls: calls that an assistant turn makes.
        tool_call_id: the call that a tool turn answers.
        name: of the tool, or of the speaker.
        reasoning_content: what an assistant thinks before it speaks, for templates that write it.
        thinking: the same under another name.
    """

    role: str
    content: str
    tool_calls: NotRequired[list[dict[str, Any]]]
    tool_call_id: NotRequired[str]
    name: NotRequired[str]
    reasoning_content: NotRequired[str]
    thinking: NotRequired[str]


Text = str | list[Message]
"""Plain text, or turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptRow(ABC, Generic[Made]):
    """Abstract: a prompt and one completion of it or two; all are plain text, or all are turns.

    Attributes:
        prompt: what the completions answer; may be the empty string, never an empty conversation.
        weight: how much the row counts in the loss, > 0; relative to 1.
        tools: what the assistant may call, as JSON schemas, for the chat template.
        template_settings: what the chat template is given besides (``chat_template_kwargs``).
        where: place in the source for people, ``pairs.jsonl:17`` or ``pairs.parquet row 3``.
    """

    prompt: Text
    weight: float = 1.0
    tools: tuple[Mapping[str, Any], ...] = ()
    template_settings: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    where: str

    @property
    @abstractmethod
    def completions(self) -> Mapping[str, Text]:
        """Each completion, without the prompt, under the name of its column."""

    @property
    @abstractmethod
    def ended(self) -> Sequence[bool]:
        """For each completion, False where it was cut off, so that no token closes it."""

    @abstractmethod
    def tokens(self, prompt_ids: list[int], completions: Sequence[list[int]]) -> Made:
        """Return the row as token ids; completions in the order of :attr:`completions`."""

    @property
    def says_nothing(self) -> bool:
        """Whether a completion has no text but white space; only transcripts may (see :mod:`align.data.turns`)."""
        return any(says_nothing(completion) for completion in self.completions.values())

    @property
    def prompt_digest(self) -> str:
        """16 hex digits of the SHA-256 of the prompt's text, the same for every tokenizer and on every machine."""
        text = self.prompt if isinstance(self.prompt, str) else json.dumps(self.prompt, sort_keys=True)
        if self.tools or self.template_settings:
            text += json.dumps([self.tools, dict(self.template_settings)], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


@dataclass(frozen=True, slots=True, kw_only=True)
class Row(PromptRow[TokenPair]):
    """A prompt and two completions of it.

    Attributes:
        chosen: the preferred completion, without the prompt.
        rejected: the other one.
        chosen_ended: False where the chosen completion was cut off, so that no token closes it.
        rejected_ended: the same of the rejected one.
        chosen_score: how good the chosen completion is, in its scorer's unit; NaN where nobody said.
        rejected_score: the same of the rejected one.
    """

    chosen: Text
    rejected: Text
    chosen_ended: bool = True
    rejected_ended: bool = True
    chosen_score: float = math.nan
    rejected_score: float = math.nan

    @property
    def completions(self) -> Mapping[str, Text]:
        """Both completions, the preferred one first."""
        return {"chosen": self.chosen, "rejected": self.rejected}

    @property
    def ended(self) -> Sequence[bool]:
        """Whether each came to its end."""
        return self.chosen_ended, self.rejected_ended

    def tokens(self, prompt_ids: list[int], completions: Sequence[list[int]]) -> TokenPair:
        """Return the pair as token ids."""
        chosen, rejected = completions
        return TokenPair(
            prompt_ids=prompt_ids,
            chosen_ids=chosen,
            rejected_ids=rejected,
            chosen_score=self.chosen_score,
            rejected_score=self.rejected_score,
            weight=self.weight,
            where=self.where,
            prompt_hash=self.prompt_digest,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpairedRow(PromptRow[UnpairedTokens]):
    """A prompt and a single completion of it.

    Attributes:
        completion: without the prompt.
        desirable: whether the model is to write such completions, or to leave them.
        completion_ended: False where the completion was cut off, so that no token closes it.
    """

    completion: Text
    desirable: bool
    completion_ended: bool = True

    @property
    def completions(self) -> Mapping[str, Text]:
        """The one completion."""
        return {"completion": self.completion}

    @property
    def ended(self) -> Sequence[bool]:
        """Whether it came to its end."""
        return (self.completion_ended,)

    def tokens(self, prompt_ids: list[int], completions: Sequence[list[int]]) -> UnpairedTokens:
        """Return the completion as token ids."""
        (completion,) = completions
        return UnpairedTokens(
            prompt_ids=prompt_ids,
            completion_ids=completion,
            desirable=self.desirable,
            weight=self.weight,
            where=self.where,
            prompt_hash=self.prompt_digest,
        )


Kind = Literal[
    "missing",
    "empty",
    "same",
    "prompts_differ",
    "nothing_left",
    "not_utf8",
    "not_json",
    "not_csv",
    "role_order",
    "unknown_role",
    "wrong_type",
    "bad_weight",
    "template",
]

KINDS: Mapping[Kind, str] = MappingProxyType(
    {
        "missing": "a column that is needed is not there, or null",
        "empty": "a completion or a conversation without anything in it",
        "same": "chosen and rejected are equal",
        "prompts_differ": "chosen and rejected do not answer one prompt",
        "nothing_left": "truncation leaves nothing of a completion, or nothing that tells chosen from rejected",
        "not_utf8": "bytes or escapes that are no Unicode text",
        "not_json": "a line that is no JSON, or no JSON object",
        "not_csv": "a line that is no CSV, or has other cells than the header",
        "role_order": "turns in an order that cannot be trained on",
        "unknown_role": "a turn by someone who is not system, user, assistant or tool",
        "wrong_type": "a cell that holds something of another form",
        "bad_weight": "a weight that is no positive number",
        "template": "the chat template refuses the row, or leaves part of it out",
    }
)
"""What can be wrong with a row, in the words of ``align data check``."""


class DataError(ValueError):
    """A fault in the user's data: what is wrong, where, and what would likely mend it.

    Examples:
        >>> print(DataError("is no folder of data", where="pairs", fix="name one data file in it"))
        pairs: is no folder of data; name one data file in it
    """

    def __init__(self, problem: str, *, where: str = "", column: str = "", fix: str = "") -> None:
        place = f"{where}: " if where else ""
        subject = f"column {column!r} " if column else ""
        super().__init__(place + subject + problem + (f"; {fix}" if fix else ""))
        self.problem = problem
        self.where = where
        self.column = column
        self.fix = fix


class RowError(DataError):
    """A fault of one row, which the rows around it do not share: it can be left out (``on_bad_row: skip``).

    Args:
        kind: one of :data:`KINDS`.
        problem: what is wrong, in words.
        where: place of the row.
        column: the column it is in, if it is in one.
        fix: what would likely mend it.
        text: what the file holds there, where it could not be read as a row.

    Examples:
        >>> print(RowError("empty", "is empty", where="pairs.jsonl:17", column="chosen", fix="remove the row"))
        pairs.jsonl:17: column 'chosen' is empty; remove the row
    """

    def __init__(
        self, kind: Kind, problem: str, *, where: str, column: str = "", fix: str = "", text: str | None = None
    ) -> None:
        super().__init__(problem, where=where, column=column, fix=fix)
        self.kind = kind
        self.text = text


SIDES = {True: " (chosen)", False: " (rejected)"}
"""What stands behind the place of a pair that is taken apart, by whether the completion is desirable."""


def side_of(where: str, desirable: bool) -> str:
    """Return the place of one completion of a pair that is taken apart.

    Examples:
        >>> side_of("pairs.jsonl:17", True)
        'pairs.jsonl:17 (chosen)'
    """
    return where + SIDES[desirable]


def place_of(where: str) -> str:
    """Return the place of the row that a completion comes from.

    Examples:
        >>> place_of("pairs.jsonl:17 (chosen)"), place_of("pairs.jsonl:17")
        ('pairs.jsonl:17', 'pairs.jsonl:17')
    """
    return where.removesuffix(SIDES[True]).removesuffix(SIDES[False])


def says_nothing(completion: Text) -> bool:
    """Return whether a completion, or its last turn, has no text but white space and calls no tool."""
    if isinstance(completion, str):
        return not completion.strip()
    return not completion[-1]["content"].strip() and not completion[-1].get("tool_calls")


def is_encodable(text: Text) -> bool:
    """Return whether all of a text is Unicode that can be written; JSON escapes can hold halves of characters."""
    try:
        (text if isinstance(text, str) else json.dumps(text, ensure_ascii=False)).encode()
    except UnicodeEncodeError:
        return False
    return True
