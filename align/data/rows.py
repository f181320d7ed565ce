"""The one form that every preference row is brought to, and the error that points at a row."""

import hashlib
import json
from dataclasses import dataclass
from typing import TypedDict


class Message(TypedDict):
    """A turn of a conversation; ``role`` is system, user or assistant."""

    role: str
    content: str


Text = str | list[Message]
"""Plain text, or turns."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A prompt and two completions of it; all three are plain text, or all three are turns.

    Attributes:
        prompt: what both completions answer; may be the empty string, never an empty conversation.
        chosen: the preferred completion, without the prompt.
        rejected: the other one.
        weight: how much the pair counts in the loss, > 0; relative to 1.
        chosen_ended: False where the chosen completion was cut off, so that no token closes it.
        rejected_ended: the same of the rejected one.
        where: place in the source for people, ``pairs.jsonl:17`` or ``pairs.parquet row 3``.
    """

    prompt: Text
    chosen: Text
    rejected: Text
    weight: float = 1.0
    chosen_ended: bool = True
    rejected_ended: bool = True
    where: str

    @property
    def says_nothing(self) -> bool:
        """Whether a completion has no text but white space; only transcripts may (see :mod:`align.data.turns`)."""
        return not last_words(self.chosen).strip() or not last_words(self.rejected).strip()

    @property
    def prompt_digest(self) -> str:
        """16 hex digits of the SHA-256 of the prompt's text, the same for every tokenizer and on every machine."""
        text = self.prompt if isinstance(self.prompt, str) else json.dumps(self.prompt, sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:16]


class DataError(ValueError):
    """A fault in the user's data: what is wrong, where, and what would likely mend it.

    Examples:
        >>> print(DataError("is empty", where="pairs.jsonl:17", column="chosen", fix="remove the row"))
        pairs.jsonl:17: column 'chosen' is empty; remove the row
    """

    def __init__(self, problem: str, *, where: str = "", column: str = "", fix: str = "") -> None:
        place = f"{where}: " if where else ""
        subject = f"column {column!r} " if column else ""
        super().__init__(place + subject + problem + (f"; {fix}" if fix else ""))
        self.where = where
        self.column = column
        self.fix = fix


def last_words(completion: Text) -> str:
    """Return the text of a completion, or of its last turn."""
    return completion if isinstance(completion, str) else completion[-1]["content"]


def is_encodable(text: Text) -> bool:
    """Return whether all of a text is Unicode that can be written; JSON escapes can hold halves of characters."""
    try:
        for words in [text] if isinstance(text, str) else [turn["content"] for turn in text]:
            words.encode()
    except UnicodeEncodeError:
        return False
    return True
