"""What this project answers to a key of another one: a name, a value, or a reason."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

Table: TypeAlias = "dict[str, Answer]"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What becomes of one key.

    Attributes:
        to: our dotted key; empty where there is none.
        says: how ours differs, or why there is none and what to do instead.
        value: their value to ours; raises ValueError for one that has no counterpart.
        harmless: values that ask for nothing, so that nothing is lost by leaving the key out.
        trains: whether leaving the key out changes what is trained.
        null: whether ``null`` is a value of its own and not the absence of one.
        grouped: whether the value is read together with those of other keys.
    """

    to: str = ""
    says: str = ""
    value: Callable[[Any], Any] | None = None
    harmless: tuple[Any, ...] = ()
    trains: bool = False
    null: bool = False
    grouped: bool = False

    @property
    def text(self) -> str:
        """One line: our key and what to know, or the reason that there is none."""
        if not self.to:
            return f"no counterpart: {self.says}"
        return f"{self.to} ({self.says})" if self.says else self.to


def renamed(to: str, says: str = "", **more: Any) -> Answer:
    """Return the answer for a key that has a counterpart."""
    return Answer(to=to, says=says, **more)


def dropped(says: str) -> Answer:
    """Return the answer for a key that changes nothing about what is trained."""
    return Answer(says=says)


def missed(says: str, *harmless: Any) -> Answer:
    """Return the answer for a key that changes what is trained, but for its ``harmless`` values."""
    return Answer(says=says, harmless=(None, *harmless), trains=True)


def grouped(to: str, says: str = "", **more: Any) -> Answer:
    """Return the answer for a key whose value is read together with others."""
    return Answer(to=to, says=says, grouped=True, **more)


def truth(value: Any) -> Any:
    """Return a word of YAML 1.1 for a truth value as one; these projects read YAML by its rules, align does not.

    Examples:
        >>> [truth(word) for word in ("yes", "Off", "steps", 3)]
        [True, False, 'steps', 3]
    """
    words = {"yes": True, "on": True, "no": False, "off": False}
    return words.get(value.lower(), value) if isinstance(value, str) else value


def attention(name: str) -> Callable[[Any], str]:
    """Return what turns a switch into the name of an attention implementation."""

    def chosen(value: Any) -> str:
        if truth(value) is not True:
            raise ValueError("only true has a counterpart")
        return name

    return chosen


def scaled_alpha(alpha: float, rank: int) -> float:
    """Return the ``lora_alpha`` that scales as rank-stabilised LoRA does: alpha / sqrt(r) = result / r.

    Examples:
        >>> scaled_alpha(16, 64)
        128.0
    """
    return alpha * math.sqrt(rank)
