"""A row as the model will see it: decoded; prompt, completion, the token that closes it, and what is cut, apart."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from align.data.inputs import inputs_of
from align.data.prepare import usable
from align.data.rows import RowError
from align.data.shapes import shape_of
from align.data.sources import rows_of
from align.data.tokenize import PairTokenizer
from align.data.tokens import PromptTokens, UnpairedTokens
from align.data.truncate import Truncation
from align.recipe.schema import SourceSettings

PieceKind = Literal["prompt", "completion", "closing", "cut"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of a prompt or a completion.

    Attributes:
        kind: ``prompt``, ``completion``, ``closing`` (the special token that ends the turn), or ``cut`` (left out by
            truncation, so that the model does not see it).
        text: what the tokens decode to.
        tokens: how many they are.
    """

    kind: PieceKind
    text: str
    tokens: int


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedPair:
    """A pair in pieces, or a single completion, which stands on one side while the other has no pieces.

    Attributes:
        where: place of its row.
        prompt: pieces of the prompt, the same for both sides.
        chosen: pieces of the preferred completion, or of a desirable one.
        rejected: pieces of the other one, or of an undesirable one.
        dropped: whether truncation leaves the row out; everything is ``cut`` then.
        desirable: whether a single completion is desirable; None for a pair.
    """

    where: str
    prompt: list[Piece]
    chosen: list[Piece]
    rejected: list[Piece]
    dropped: bool
    desirable: bool | None = None

    @property
    def truncated(self) -> bool:
        """Whether anything is cut."""
        return any(piece.kind == "cut" for piece in [*self.prompt, *self.chosen, *self.rejected])

    def as_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON; a single completion is ``completion``, and its label ``desirable``."""
        plain = {**asdict(self), "truncated": self.truncated}
        if self.desirable is None:
            plain.pop("desirable")
            return plain
        sides = {True: plain.pop("chosen"), False: plain.pop("rejected")}
        return {**plain, "completion": sides[self.desirable]}

    @property
    def sides(self) -> dict[str, list[Piece]]:
        """What is trained on, by what it is called."""
        if self.desirable is None:
            return {"chosen": self.chosen, "rejected": self.rejected}
        return {"desirable": self.chosen} if self.desirable else {"undesirable": self.rejected}


def preview(tokenizer: PreTrainedTokenizerBase, whole: PromptTokens, kept: PromptTokens | None) -> PreviewedPair:
    """Return a row in pieces.

    Args:
        tokenizer: that made the ids.
        whole: the row before truncation.
        kept: the row after truncation, or None where it is dropped.
    """
    seen = kept or whole.cut_to([], [[] for _ in whole.completions])
    prompt = list(_prompt_parts(whole.prompt_ids, seen.prompt_ids))
    closing = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    sides = {
        name: _decoded(tokenizer, [*prompt, *_completion_parts(ids, len(left), closing)])[len(prompt) :]
        for (name, ids), left in zip(whole.completions.items(), seen.completions.values(), strict=True)
    }
    return PreviewedPair(
        where=whole.where,
        prompt=_decoded(tokenizer, prompt),
        chosen=sides.get("chosen") or sides.get("desirable") or [],
        rejected=sides.get("rejected") or sides.get("undesirable") or [],
        dropped=kept is None,
        desirable=whole.desirable if isinstance(whole, UnpairedTokens) else None,
    )


Part = tuple[PieceKind, Sequence[int]]


def _prompt_parts(whole: Sequence[int], kept: Sequence[int]) -> Iterator[Part]:
    """Yield what is kept and what is cut; ``keep_end`` may leave the first token (BOS) in front of what it cuts."""
    missing = len(whole) - len(kept)
    if not missing or not kept:
        yield ("cut" if missing else "prompt"), whole
        return
    first = 1 if len(kept) > 1 and list(whole[missing:]) != list(kept) else 0
    if first:
        yield "prompt", whole[:1]
    yield "cut", whole[first : missing + first]
    yield "prompt", whole[missing + first :]


def _completion_parts(ids: Sequence[int], kept: int, closing: set[int]) -> Iterator[Part]:
    closed = kept == len(ids) and ids[-1] in closing
    yield "completion", ids[: kept - closed]
    yield "closing", ids[kept - closed : kept]
    yield "cut", ids[kept:]


def _decoded(tokenizer: PreTrainedTokenizerBase, parts: Sequence[Part]) -> list[Piece]:
    """Return the parts as text, each as it reads behind those before it; some tokenizers drop a leading space."""
    pieces: list[Piece] = []
    before, ids = "", list[int]()
    for kind, part in parts:
        ids += part
        text = str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
        own = text[len(before) :] if text.startswith(before) else str(tokenizer.decode(list(part)))
        before = text
        if part:
            pieces.append(Piece(kind, own, len(part)))
    return pieces


def read_previewed(
    source: SourceSettings,
    tokenizer: PreTrainedTokenizerBase,
    *,
    start: int = 1,
    rows: int = 3,
    max_length: int | None = 1024,
    truncation: Truncation = "keep_start",
) -> list[tuple[PromptTokens, PromptTokens | None] | RowError]:
    """Return some rows of a source before and after truncation, and in place of bad ones their faults.

    Args:
        source: as in a recipe.
        tokenizer: of the model.
        start: number of the first row, from 1.
        rows: how many.
        max_length: as in a recipe.
        truncation: as in a recipe.

    Raises:
        DataError: if the source is not there, or is broken beyond single rows.
    """
    (given,) = inputs_of(source, "rows")
    shape = shape_of(given)
    pairs = PairTokenizer(tokenizer, max_length=max_length, truncation=truncation)
    found: list[tuple[PromptTokens, PromptTokens | None] | RowError] = []
    for read in islice(rows_of(given.source, given.settings), start - 1, start - 1 + rows):
        if given.tokenised:
            whole = list(usable([read], shape.from_ids, found.append))
        else:
            whole = pairs.encode(list(usable([read], shape.reader(given.settings.format), found.append)), found.append)
        found += pairs.fitted(whole, found.append)
    return found
