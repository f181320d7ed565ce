"""From rows to exact token ids.

Prompt and completions are tokenised apart, so that the boundary between them is a boundary between tokens, and the
prompt's ids are those the model is given when it generates. The tokenizer adds nothing by itself
(``add_special_tokens=False``); what it would add in front of plain text (BOS) is added here, once. A chat template
writes BOS itself or leaves it out on purpose, as everywhere that templates are served from.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from transformers import PreTrainedTokenizerBase

from align.data.cache import tokenizer_state
from align.data.rows import PromptRow, RowError
from align.data.special import own_bos, with_start
from align.data.template import Rendered, Renderer
from align.data.tokens import PromptTokens
from align.data.truncate import POLICIES, Truncation, truncate

Tokens = TypeVar("Tokens", bound=PromptTokens)

Refuse = Callable[[RowError], None]
"""What is done about a row that cannot be used."""

NO_LIMIT = 10**9
"""Tokenizers that know no limit state one beyond this."""


def raise_fault(fault: RowError) -> None:
    """Raise the fault of a row.

    Raises:
        RowError: always.
    """
    raise fault


@dataclass(slots=True, kw_only=True)
class Counts:
    """What became of the rows so far.

    Attributes:
        rows: rows that could be used; a pair that is taken apart is two.
        truncated: rows that were cut.
        dropped: rows left out for their length.
        silent: rows in which a completion says nothing (transcripts only).
        transcribed: conversations written as transcripts, because the tokenizer has no chat template.
        prompt_tokens: tokens of the prompts kept, each counted once.
        chosen_tokens: tokens of the chosen completions kept.
        rejected_tokens: tokens of the rejected completions kept.
        desirable: single completions kept that are desirable.
        undesirable: single completions kept that are not.
        desirable_tokens: tokens of the former.
        undesirable_tokens: tokens of the latter.
    """

    rows: int = 0
    truncated: int = 0
    dropped: int = 0
    silent: int = 0
    transcribed: int = 0
    prompt_tokens: int = 0
    chosen_tokens: int = 0
    rejected_tokens: int = 0
    desirable: int = 0
    undesirable: int = 0
    desirable_tokens: int = 0
    undesirable_tokens: int = 0

    @property
    def kept(self) -> int:
        """Rows kept."""
        return self.rows - self.dropped

    @property
    def pairs(self) -> int:
        """Pairs kept."""
        return self.kept - self.desirable - self.undesirable

    def keep(self, row: PromptTokens) -> None:
        """Count the tokens of a row that is kept, and what it is."""
        self.prompt_tokens += len(row.prompt_ids)
        for name, ids in row.completions.items():
            setattr(self, f"{name}_tokens", getattr(self, f"{name}_tokens") + len(ids))
        self.desirable += "desirable" in row.completions
        self.undesirable += "undesirable" in row.completions


class PairTokenizer:
    """Turns rows, pairs or single completions, into at most ``max_length`` token ids, and counts what it does.

    Args:
        tokenizer: of the model that is trained.
        max_length: longest prompt + completion, in tokens; None is the tokenizer's ``model_max_length`` where it
            states one, else no limit.
        truncation: see :func:`~align.data.truncate.truncate`.

    Raises:
        DataError: if the tokenizer has no EOS.
        ValueError: if ``max_length`` has no room for a prompt token and a completion token.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        *,
        max_length: int | None = 1024,
        truncation: Truncation = "keep_start",
    ) -> None:
        self.max_length = resolved_length(tokenizer, max_length)
        if self.max_length is not None and self.max_length < 2:
            raise ValueError(f"max_length must be at least 2, got {self.max_length}")
        if truncation not in POLICIES:
            raise ValueError(f"truncation must be one of {', '.join(POLICIES)}; got {truncation!r}")
        self.truncation = truncation
        self.counts = Counts()
        self._tokenizer = tokenizer
        self._render = Renderer(tokenizer)
        self._bos = own_bos(tokenizer)

    @property
    def key(self) -> dict[str, Any]:
        """Everything that decides about the ids, for the cache."""
        return {
            "tokenizer": tokenizer_state(self._tokenizer),
            "max_length": self.max_length,
            "truncation": self.truncation,
        }

    def __call__(self, rows: Sequence[PromptRow[Tokens]], refuse: Refuse = raise_fault) -> list[Tokens]:
        """Return the rows as ids, those dropped left out; one call of the tokenizer for all.

        Args:
            rows: the rows.
            refuse: what is done about a row that cannot be rendered, or of which nothing that can be used is left;
                it raises the fault by default.
        """
        return self.fit(self.encode(rows, refuse), refuse)

    def encode(self, rows: Sequence[PromptRow[Tokens]], refuse: Refuse = raise_fault) -> list[Tokens]:
        """Return the rows as ids in their whole length, without counting them; ``refuse`` as in a call."""
        rendered = [(row, text) for row in rows if (text := self._rendered(row, refuse)) is not None]
        if not rendered:
            return []
        pieces = [piece for _, text in rendered for piece in (text.prompt, *text.completions)]
        ids: list[list[int]] = self._tokenizer(
            pieces, add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        self.counts.silent += sum(row.says_nothing for row, _ in rendered)
        self.counts.transcribed += sum(not (text.templated or isinstance(row.prompt, str)) for row, text in rendered)
        left = iter(ids)
        return [
            self._tokens(row, text, next(left), list(islice(left, len(text.completions)))) for row, text in rendered
        ]

    def fit(self, rows: Sequence[Tokens], refuse: Refuse = raise_fault) -> list[Tokens]:
        """Return the rows cut to length, those dropped left out, and count them; ``refuse`` as in a call."""
        return [fitting for _, fitting in self.fitted(rows, refuse) if fitting is not None]

    def fitted(self, rows: Sequence[Tokens], refuse: Refuse = raise_fault) -> Iterator[tuple[Tokens, Tokens | None]]:
        """Yield each row whole and cut to length (None where it is dropped), and count them."""
        for row in rows:
            try:
                fitting = truncate(row, self.max_length, self.truncation, bos=self._tokenizer.bos_token_id)
            except RowError as fault:
                refuse(fault)
                continue
            self._count(row, fitting)
            yield row, fitting

    def _rendered(self, row: PromptRow[Any], refuse: Refuse) -> Rendered | None:
        try:
            return self._render(row)
        except RowError as fault:
            refuse(fault)
            return None

    def _tokens(self, row: PromptRow[Tokens], text: Rendered, prompt: list[int], ids: list[list[int]]) -> Tokens:
        return row.tokens(with_start(prompt, self._tokenizer, None if text.templated else self._bos), ids)

    def _count(self, before: PromptTokens, after: PromptTokens | None) -> None:
        self.counts.rows += 1
        self.counts.dropped += after is None
        self.counts.truncated += after is not None and after is not before
        if after is not None:
            self.counts.keep(after)


def resolved_length(tokenizer: PreTrainedTokenizerBase, max_length: int | None) -> int | None:
    """Return ``max_length``, or where it is None the tokenizer's own limit, or None where it states none."""
    own = tokenizer.model_max_length
    return max_length if max_length is not None or own >= NO_LIMIT else int(own)
