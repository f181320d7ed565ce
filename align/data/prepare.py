"""Prepared rows: read, tokenised, kept on disk under a key of their content, read from there the next time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeAlias, TypeVar

import datasets
import numpy as np
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from align.data.bad_rows import BadRows, OnBadRow, read_skipped, with_way_out
from align.data.cache import cache_root, key_of
from align.data.files import ReadRow
from align.data.inputs import Input, inputs_of
from align.data.rows import DataError, RowError, place_of
from align.data.shapes import COMPLETIONS, PAIRS, Shape
from align.data.sources import rows_of
from align.data.store import PreparationReport, Store, noun_of
from align.data.tokenize import PairTokenizer, Refuse
from align.data.tokens import PromptTokens
from align.data.truncate import Truncation
from align.recipe.schema import SourceSettings

Made = TypeVar("Made")
Tokens = TypeVar("Tokens", bound=PromptTokens)

Sources: TypeAlias = SourceSettings | Sequence[SourceSettings] | datasets.Dataset | Iterable[Any]
"""Sources, data sets, or both mixed; or rows as dicts."""

BATCH = 1000
"""Rows that are tokenised by one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPairs:
    """Pairs ready for :class:`~align.data.collate.PairCollator`, or completions for ``UnpairedCollator`` beside it.

    Attributes:
        dataset: on disk, not in memory; columns :data:`~align.data.store.FEATURES` or, of single completions,
            :data:`~align.data.store.UNPAIRED_FEATURES`. ``length`` is in tokens, of the longer side, for grouping by
            length; scores are NaN where rows state none. Its fingerprint is the key of its content.
        report: what became of the rows.
        cached: whether nothing had to be tokenised.
        skipped_file: the rows left out because they could not be used, a line of JSON each
            (:class:`~align.data.bad_rows.SkippedRow`); None where there are none.
    """

    dataset: datasets.Dataset
    report: PreparationReport
    cached: bool = False
    skipped_file: Path | None = None


def prepare_pairs(
    sources: Sources,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = 1024,
    truncation: Truncation = "keep_start",
    on_bad_row: OnBadRow = "fail",
    cache_dir: Path | None = None,
    name: str = "train_dataset",
) -> PreparedPairs:
    """Prepare the pairs of sources, one after the other, or take them from the cache.

    The key of the cache is made of the content (bytes of local files, fingerprints of data sets), of how it is read
    (format, columns, share), of the tokenizer (rules, special tokens, chat template) and of lengths and truncation.
    Names and folders of files, and what is done about bad rows, do not change it.

    Args:
        sources: sources, data sets, or both mixed; or rows as dicts. A data set with ``prompt_ids``, ``chosen_ids``
            and ``rejected_ids`` is taken as tokenised, special tokens and all, and only cut to length.
        tokenizer: of the model that is trained.
        max_length: longest prompt + completion, in tokens; None is the tokenizer's own limit.
        truncation: what to do with longer ones, see :func:`~align.data.truncate.truncate`.
        on_bad_row: ``fail`` at the first row that cannot be used, or ``skip`` them all and write them down.
        cache_dir: folder of the cache; ``prepared`` in :func:`~align.data.cache.cache_root` by default.
        name: how places in data sets and rows begin, ``train_dataset row 3``.

    Raises:
        DataError: if a source is not there; or if no pair is left.
        RowError: if a row cannot be used, with its place, and ``on_bad_row`` is ``fail``.
    """
    rows = PairTokenizer(tokenizer, max_length=max_length, truncation=truncation)
    return _prepared(PAIRS, inputs_of(sources, name), rows, on_bad_row, cache_dir)


def prepare_unpaired(
    sources: Sources,
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = 1024,
    truncation: Truncation = "keep_start",
    on_bad_row: OnBadRow = "fail",
    cache_dir: Path | None = None,
    name: str = "train_dataset",
) -> PreparedPairs:
    """Prepare single completions of sources, each desirable or not; a pair is taken apart into one of each.

    Everything else is as in :func:`prepare_pairs`. Both completions of a pair have its weight, and places that end in
    ``(chosen)`` and ``(rejected)``; each is cut to length by itself.

    Args:
        sources: as there. A data set with ``prompt_ids``, ``completion_ids`` and ``desirable`` is taken as tokenised,
            and so is one of pairs.
        tokenizer: as there.
        max_length: as there.
        truncation: as there.
        on_bad_row: as there.
        cache_dir: as there.
        name: as there.

    Raises:
        DataError: as there.
        RowError: as there.
    """
    rows = PairTokenizer(tokenizer, max_length=max_length, truncation=truncation)
    return _prepared(COMPLETIONS, inputs_of(sources, name), rows, on_bad_row, cache_dir)


def split_by_prompt(prepared: PreparedPairs, fraction: float) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Hold out about ``fraction`` of the prompts, with all their rows.

    Which ones follows from a hash of a prompt's text alone: the same on every machine, for every tokenizer, order
    and amount of other data. A prompt is never on both sides.

    Returns:
        The rows to train on, and those held out.

    Raises:
        DataError: if either side would be empty.
    """
    hashes = prepared.dataset.data.column("prompt_hash")
    out = np.concatenate([_held_out(chunk, fraction) for chunk in hashes.chunks])
    if out.all() or not out.any():
        side = "to train on" if out.all() else "held out"
        prompts = pyarrow.compute.count_distinct(hashes).as_py()
        raise DataError(
            f"eval_fraction {fraction} of {prompts} prompts leaves no {noun_of(prepared.dataset.column_names)} {side}",
            fix="change it, or give 'eval'",
        )
    return prepared.dataset.select(np.flatnonzero(~out)), prepared.dataset.select(np.flatnonzero(out))


def _held_out(hashes: pyarrow.Array, fraction: float) -> NDArray[np.bool_]:
    return np.fromiter((int(digest[:8], 16) < fraction * 16**8 for digest in hashes.to_pylist()), bool, len(hashes))


def _prepared(
    shape: Shape[Tokens], inputs: Sequence[Input], rows: PairTokenizer, on_bad_row: OnBadRow, cache_dir: Path | None
) -> PreparedPairs:
    key = key_of({"inputs": [i.key for i in inputs], "columns": list(shape.features), **rows.key})
    file = (cache_dir or cache_root() / "prepared") / f"{key}.arrow"
    store = Store(file, [i.source.name for i in inputs], shape.features)
    cached = store.is_whole()
    if not cached:
        bad = BadRows(on_bad_row=on_bad_row)
        batches = _tokenised(shape, inputs, rows, bad)
        store.write(key, batches, rows, bad)
    elif on_bad_row == "fail" and (skipped := store.skipped()) is not None:
        raise with_way_out(next(read_skipped(skipped)).fault)
    return PreparedPairs(
        dataset=datasets.Dataset.from_file(str(store.file)),
        report=store.report(),
        cached=cached,
        skipped_file=store.skipped(),
    )


def _tokenised(
    shape: Shape[Tokens], inputs: Sequence[Input], rows: PairTokenizer, bad: BadRows
) -> Iterator[list[Tokens]]:
    counts = [i.rows for i in inputs]
    total = None if None in counts else sum(count or 0 for count in counts)
    with tqdm(total=total, desc="tokenizing", unit=" rows") as bar:
        for each in inputs:
            raw = rows_of(each.source, each.settings)
            while batch := list(islice(raw, BATCH)):
                yield _tokenise(shape, batch, each, rows, bad)
                bar.update(len(batch))


def _tokenise(
    shape: Shape[Tokens], batch: Sequence[ReadRow], given: Input, rows: PairTokenizer, bad: BadRows
) -> list[Tokens]:
    raw_rows = {where: raw for where, raw in batch if not isinstance(raw, RowError)}

    def refuse(fault: RowError) -> None:
        bad.take(fault, raw_rows.get(place_of(fault.where)))

    if given.tokenised:
        return rows.fit(list(usable(batch, shape.from_ids, refuse)), refuse)
    return rows(list(usable(batch, shape.reader(given.settings.format), refuse)), refuse)


def usable(
    batch: Iterable[ReadRow], make: Callable[[dict[str, Any], str], Sequence[Made]], refuse: Refuse
) -> Iterator[Made]:
    """Yield all that is made of each row, and refuse the rows of which nothing can be made."""
    for where, raw in batch:
        if isinstance(raw, RowError):
            refuse(raw)
            continue
        try:
            made = make(raw, where)
        except RowError as fault:
            refuse(fault)
            continue
        yield from made
