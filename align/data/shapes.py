"""What rows are prepared as: pairs, or single completions that are each desirable or not."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from align.data.formats import Form, to_row
from align.data.inputs import ID_COLUMNS, Input, completions_of_ids, pair_of_ids
from align.data.rows import PromptRow, Row, RowError
from align.data.sources import rows_of
from align.data.store import FEATURES, UNPAIRED_FEATURES
from align.data.tokens import PromptTokens, TokenPair, UnpairedTokens
from align.data.unpaired import is_single, to_unpaired

Tokens = TypeVar("Tokens", bound=PromptTokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape(Generic[Tokens]):
    """Pairs, or single completions.

    Attributes:
        features: columns they have when prepared.
        from_raw: makes the rows of one raw row.
        from_ids: makes the rows of one row that is token ids already.
    """

    features: Mapping[str, Any]
    from_raw: Callable[[Mapping[str, Any], str, Form], Sequence[PromptRow[Tokens]]]
    from_ids: Callable[[Mapping[str, Any], str], Sequence[Tokens]]

    def reader(self, form: Form) -> Callable[[Mapping[str, Any], str], Sequence[PromptRow[Tokens]]]:
        """Return what makes the rows of one raw row in a form."""
        return lambda raw, where: self.from_raw(raw, where, form)


def _pair(raw: Mapping[str, Any], where: str, form: Form) -> list[Row]:
    return [to_row(raw, where, form)]


def _pair_of_ids(raw: Mapping[str, Any], where: str) -> list[TokenPair]:
    return [pair_of_ids(raw, where)]


PAIRS: Shape[TokenPair] = Shape(features=FEATURES, from_raw=_pair, from_ids=_pair_of_ids)
COMPLETIONS: Shape[UnpairedTokens] = Shape(
    features=UNPAIRED_FEATURES, from_raw=to_unpaired, from_ids=completions_of_ids
)


def shape_of(given: Input) -> Shape[Any]:
    """Return what the rows of an input are by themselves, told by the columns or the first row that can be read."""
    if given.tokenised:
        return PAIRS if set(ID_COLUMNS) <= set(given.source.columns) else COMPLETIONS
    for _, raw in rows_of(given.source, given.settings):
        if not isinstance(raw, RowError):
            return COMPLETIONS if is_single(raw) else PAIRS
    return PAIRS
