"""Rows as token ids: a prompt, and the completions of it that are trained on."""

import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Self


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptTokens(ABC):
    """Abstract: a prompt with one completion or two.

    Attributes:
        prompt_ids: ids before the completions, at least one.
        weight: how much the row counts in the loss, > 0.
        where: place of its row in the source.
        prompt_hash: digest of the prompt's text before anything was cut; equal prompts have equal ones.
    """

    prompt_ids: list[int]
    weight: float
    where: str
    prompt_hash: str

    @property
    @abstractmethod
    def completions(self) -> Mapping[str, list[int]]:
        """Ids of each completion by what it is: chosen and rejected, or desirable, or undesirable."""

    @abstractmethod
    def cut_to(self, prompt_ids: list[int], completions: Sequence[list[int]]) -> Self:
        """Return the row with other ids; completions in the order of :attr:`completions`."""

    @property
    def length(self) -> int:
        """Tokens of the prompt and the longest completion."""
        return len(self.prompt_ids) + max(len(ids) for ids in self.completions.values())

    @property
    def alike(self) -> bool:
        """Whether there are two completions, and nothing tells them apart."""
        first, *others = self.completions.values()
        return first in others


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenPair(PromptTokens):
    """A pair as token ids; the prompt is the same for both sides.

    Attributes:
        chosen_ids: ids of the preferred completion, at least one, with the token that closes it unless cut.
        rejected_ids: ids of the other one, likewise.
        chosen_score: how good the preferred completion is, in its scorer's unit; NaN where nobody said.
        rejected_score: the same of the other one.
    """

    chosen_ids: list[int]
    rejected_ids: list[int]
    chosen_score: float = math.nan
    rejected_score: float = math.nan

    @property
    def completions(self) -> Mapping[str, list[int]]:
        """Ids of both sides, the preferred one first."""
        return {"chosen": self.chosen_ids, "rejected": self.rejected_ids}

    def cut_to(self, prompt_ids: list[int], completions: Sequence[list[int]]) -> Self:
        """Return the pair with other ids."""
        chosen, rejected = completions
        return replace(self, prompt_ids=prompt_ids, chosen_ids=chosen, rejected_ids=rejected)


@dataclass(frozen=True, slots=True, kw_only=True)
class UnpairedTokens(PromptTokens):
    """A single completion as token ids.

    Attributes:
        completion_ids: ids of the completion, at least one, with the token that closes it unless cut.
        desirable: whether the model is to write such completions, or to leave them.
    """

    completion_ids: list[int]
    desirable: bool

    @property
    def completions(self) -> Mapping[str, list[int]]:
        """Ids of the one completion, under what it is."""
        return {"desirable" if self.desirable else "undesirable": self.completion_ids}

    def cut_to(self, prompt_ids: list[int], completions: Sequence[list[int]]) -> Self:
        """Return the completion with other ids."""
        (completion,) = completions
        return replace(self, prompt_ids=prompt_ids, completion_ids=completion)
