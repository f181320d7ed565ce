"""A pair as the model will see it: decoded; prompt, completion, the token that closes it, and what is cut, apart."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from itertools import islice
from typing import Any, Literal

from transformers import PreTrainedTokenizerBase

from align.data.formats import to_row
from align.data.inputs import inputs_of, pair_of_ids
from align.data.prepare import usable
from align.data.rows import RowError
from align.data.sources import rows_of
from align.data.tokenize import PairTokenizer
from align.data.truncate import TokenPair, Truncation
from align.recipe.schema import SourceSettings

PieceKind = Literal["prompt", "completion", "closing", "cut"]


@dataclass(frozen=True, slots=True)
class Piece:
    """A stretch of one side of a pair.

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
    """Both sides of a pair in pieces.

    Attributes:
        where: place of its row.
        prompt: pieces of the prompt, the same for both sides.
        chosen: pieces of the preferred completion.
        rejected: pieces of the other one.
        dropped: whether truncation leaves the pair out; everything is ``cut`` then.
    """

    where: str
    prompt: list[Piece]
    chosen: list[Piece]
    rejected: list[Piece]
    dropped: bool

    @property
    def truncated(self) -> bool:
        """Whether anything is cut."""
        return any(piece.kind == "cut" for piece in [*self.prompt, *self.chosen, *self.rejected])

    def as_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "truncated": self.truncated}


def preview(tokenizer: PreTrainedTokenizerBase, whole: TokenPair, kept: TokenPair | None) -> PreviewedPair:
    """Return a pair in pieces.

    Args:
        tokenizer: that made the ids.
        whole: the pair before truncation.
        kept: the pair after truncation, or None where it is dropped.
    """
    seen = kept or TokenPair(
        prompt_ids=[], chosen_ids=[], rejected_ids=[], weight=whole.weight, where=whole.where, prompt_hash=""
    )
    prompt = list(_prompt_parts(whole.prompt_ids, seen.prompt_ids))
    closing = set(tokenizer.all_special_ids) | {i for i, t in tokenizer.added_tokens_decoder.items() if t.special}
    sides = [
        _decoded(tokenizer, [*prompt, *_completion_parts(ids, len(left), closing)])[len(prompt) :]
        for ids, left in ((whole.chosen_ids, seen.chosen_ids), (whole.rejected_ids, seen.rejected_ids))
    ]
    return PreviewedPair(
        where=whole.where,
        prompt=_decoded(tokenizer, prompt),
        chosen=sides[0],
        rejected=sides[1],
        dropped=kept is None,
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
) -> list[tuple[TokenPair, TokenPair | None] | RowError]:
    """Return some rows of a source as pairs before and after truncation, and in place of bad ones their faults.

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
    pairs = PairTokenizer(tokenizer, max_length=max_length, truncation=truncation)
    found: list[tuple[TokenPair, TokenPair | None] | RowError] = []
    for read in islice(rows_of(given.source, given.settings), start - 1, start - 1 + rows):
        if given.tokenised:
            whole = list(usable([read], pair_of_ids, found.append))
        else:
            made = list(usable([read], partial(to_row, form=given.settings.format), found.append))
            whole = pairs.encode(made, found.append)
        found += pairs.fitted(whole, found.append)
    return found
