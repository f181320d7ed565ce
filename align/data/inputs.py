"""What :func:`~align.data.prepare.prepare_pairs` may be given, brought to one form."""

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypedDict

import datasets

from align.data.columns import label_of, score_of, weight_of
from align.data.files import kind_of
from align.data.formats import refuse_single
from align.data.rows import DataError, RowError, side_of
from align.data.sources import OpenSource, open_dataset, open_list, open_source, share_of
from align.data.tokens import TokenPair, UnpairedTokens
from align.recipe.schema import SourceSettings

ID_COLUMNS = ("prompt_ids", "chosen_ids", "rejected_ids")
"""Columns of pairs that are token ids already."""
UNPAIRED_ID_COLUMNS = ("prompt_ids", "completion_ids")
"""Columns of single completions that are token ids already."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Input:
    """A source that is open, and how its rows are to be taken."""

    source: OpenSource
    settings: SourceSettings

    @property
    def tokenised(self) -> bool:
        """Whether its rows are token ids already."""
        return any(set(columns) <= set(self.source.columns) for columns in (ID_COLUMNS, UNPAIRED_ID_COLUMNS))

    @property
    def rows(self) -> int | None:
        """Rows that are taken, where known."""
        return share_of(self.source.count(), self.settings.weight)

    @property
    def key(self) -> list[Any]:
        """Everything that decides about its rows, for the cache; not the name, which only places begin with."""
        taken = self.settings
        return [
            self.source.content(),
            kind_of(self.source.name),
            taken.format,
            sorted(taken.columns.items()),
            taken.weight,
        ]


def inputs_of(given: Any, name: str) -> list[Input]:
    """Return sources, data sets or rows, alone or several, as inputs.

    Args:
        given: see :func:`~align.data.prepare.prepare_pairs`.
        name: what data sets and rows are called in errors.

    Raises:
        DataError: if it is none of these, or a source is not there.
    """
    _refuse_streams(given)
    if isinstance(given, SourceSettings | datasets.Dataset):
        return [_input(given, name)]
    if isinstance(given, str | Mapping) or not isinstance(given, Iterable):
        raise DataError(f"{name} must be sources, a datasets.Dataset or rows, got {type(given).__name__}")
    items = list(given)
    for item in items:
        _refuse_streams(item)
    if all(isinstance(item, SourceSettings | datasets.Dataset) for item in items):
        return [_input(item, f"{name}[{i}]" if len(items) > 1 else name) for i, item in enumerate(items)]
    if all(isinstance(item, Mapping) for item in items):
        return [Input(source=open_list(items, name=name), settings=_as_it_is(name))]
    kinds = sorted({type(item).__name__ for item in items})
    raise DataError(f"{name} must hold sources and data sets, or rows as dicts; got {', '.join(kinds)}")


def pair_of_ids(raw: Mapping[str, Any], where: str) -> TokenPair:
    """Return a pair that is token ids already; weight, scores, ``where`` and ``prompt_hash`` may be there too.

    Raises:
        RowError: if a list of ids is missing or empty, or the weight is not a positive number.
    """
    refuse_single(raw, where)
    return TokenPair(
        chosen_ids=_ids(raw, "chosen_ids", where),
        rejected_ids=_ids(raw, "rejected_ids", where),
        chosen_score=score_of(raw, "chosen_score", where),
        rejected_score=score_of(raw, "rejected_score", where),
        **_prompt_of_ids(raw, where),
    )


def completions_of_ids(raw: Mapping[str, Any], where: str) -> list[UnpairedTokens]:
    """Return the single completions of a row that is token ids already: one with ``desirable``, or a pair's two.

    Raises:
        RowError: if a list of ids is missing or empty, ``desirable`` does not say, or the weight is no positive number.
    """
    shared = _prompt_of_ids(raw, where)

    def single(column: str, desirable: bool) -> UnpairedTokens:
        return UnpairedTokens(completion_ids=_ids(raw, column, where), desirable=desirable, **shared)

    if raw.get("completion_ids") is not None or raw.get("chosen_ids") is None:
        return [single("completion_ids", label_of(raw, "desirable", where))]
    sides = single("chosen_ids", True), single("rejected_ids", False)
    return [replace(side, where=side_of(side.where, side.desirable)) for side in sides]


class _PromptOfIds(TypedDict):
    prompt_ids: list[int]
    weight: float
    where: str
    prompt_hash: str


def _prompt_of_ids(raw: Mapping[str, Any], where: str) -> _PromptOfIds:
    ids = _ids(raw, "prompt_ids", where)
    return _PromptOfIds(
        prompt_ids=ids,
        weight=weight_of(raw, where),
        where=str(raw.get("where") or where),
        prompt_hash=str(raw.get("prompt_hash") or hashlib.sha256(repr(ids).encode()).hexdigest()[:16]),
    )


def _ids(raw: Mapping[str, Any], column: str, where: str) -> list[int]:
    value = raw.get(column)
    if not isinstance(value, list) or not value or not all(isinstance(i, int) and i >= 0 for i in value):
        raise RowError("wrong_type", "must be a list of at least one token id", where=where, column=column)
    return list(value)


def _input(given: SourceSettings | datasets.Dataset, name: str) -> Input:
    if isinstance(given, SourceSettings):
        return Input(source=open_source(given), settings=given)
    return Input(source=open_dataset(given, name=name), settings=_as_it_is(name))


def _as_it_is(name: str) -> SourceSettings:
    return SourceSettings(path=name)


def _refuse_streams(given: Any) -> None:
    if isinstance(given, datasets.IterableDataset | datasets.IterableDatasetDict):
        raise DataError(
            "a streamed data set has no end and no fingerprint to keep it under",
            fix="load it with streaming=False, or save the part you need to a file",
        )
    if isinstance(given, datasets.DatasetDict):
        raise DataError(f"a data set with several splits ({', '.join(given)})", fix="pass one of them")
