"""Prepared pairs: read, tokenised, kept on disk under a key of their content, read from there the next time."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import datasets
import numpy as np
import pyarrow
import pyarrow.compute
from numpy.typing import NDArray
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from align.data.bad_rows import BadRows, OnBadRow, read_skipped, with_way_out
from align.data.cache import cache_root, key_of, tokenizer_state
from align.data.files import ReadRow
from align.data.formats import to_row
from align.data.inputs import Input, inputs_of, pair_of_ids
from align.data.rows import DataError, RowError
from align.data.sources import rows_of
from align.data.store import PreparationReport, Store
from align.data.tokenize import PairTokenizer, Refuse
from align.data.truncate import TokenPair, Truncation
from align.recipe.schema import SourceSettings

Made = TypeVar("Made")

BATCH = 1000
"""Rows that are tokenised by one call."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPairs:
    """Pairs ready for :class:`~align.data.collate.PairCollator`.

    Attributes:
        dataset: on disk, not in memory; columns ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, ``length``
            (tokens of the longer side, for grouping by length), ``weight``, ``where`` and ``prompt_hash``. Its
            fingerprint is the key of its content.
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
    sources: SourceSettings | Sequence[SourceSettings] | datasets.Dataset | Iterable[Any],
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
    inputs = inputs_of(sources, name)
    pairs = PairTokenizer(tokenizer, max_length=max_length, truncation=truncation)
    settings = {"max_length": pairs.max_length, "truncation": truncation}
    key = key_of({"inputs": [i.key for i in inputs], "tokenizer": tokenizer_state(tokenizer), **settings})
    store = Store((cache_dir or cache_root() / "prepared") / f"{key}.arrow", [i.source.name for i in inputs])
    cached = store.is_whole()
    if not cached:
        bad = BadRows(on_bad_row=on_bad_row)
        store.write(key, _tokenised(inputs, pairs, bad), pairs, bad)
    elif on_bad_row == "fail" and (skipped := store.skipped()) is not None:
        raise with_way_out(next(read_skipped(skipped)).fault)
    return PreparedPairs(
        dataset=datasets.Dataset.from_file(str(store.file)),
        report=store.report(),
        cached=cached,
        skipped_file=store.skipped(),
    )


def split_by_prompt(prepared: PreparedPairs, fraction: float) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Hold out about ``fraction`` of the prompts, with all their pairs.

    Which ones follows from a hash of a prompt's text alone: the same on every machine, for every tokenizer, order
    and amount of other data. A prompt is never on both sides.

    Returns:
        The pairs to train on, and those held out.

    Raises:
        DataError: if either side would be empty.
    """
    hashes = prepared.dataset.data.column("prompt_hash")
    out = np.concatenate([_held_out(chunk, fraction) for chunk in hashes.chunks])
    if out.all() or not out.any():
        side = "to train on" if out.all() else "held out"
        prompts = pyarrow.compute.count_distinct(hashes).as_py()
        raise DataError(
            f"eval_fraction {fraction} of {prompts} prompts leaves no pair {side}",
            fix="change it, or give 'eval'",
        )
    return prepared.dataset.select(np.flatnonzero(~out)), prepared.dataset.select(np.flatnonzero(out))


def _held_out(hashes: pyarrow.Array, fraction: float) -> NDArray[np.bool_]:
    return np.fromiter((int(digest[:8], 16) < fraction * 16**8 for digest in hashes.to_pylist()), bool, len(hashes))


def _tokenised(inputs: Sequence[Input], pairs: PairTokenizer, bad: BadRows) -> Iterator[list[TokenPair]]:
    counts = [i.rows for i in inputs]
    total = None if None in counts else sum(count or 0 for count in counts)
    with tqdm(total=total, desc="tokenizing", unit=" rows") as bar:
        for each in inputs:
            rows = rows_of(each.source, each.settings)
            while batch := list(islice(rows, BATCH)):
                yield _tokenise(batch, each, pairs, bad)
                bar.update(len(batch))


def _tokenise(batch: Sequence[ReadRow], given: Input, pairs: PairTokenizer, bad: BadRows) -> list[TokenPair]:
    raw_rows = {where: raw for where, raw in batch if not isinstance(raw, RowError)}

    def refuse(fault: RowError) -> None:
        bad.take(fault, raw_rows.get(fault.where))

    if given.tokenised:
        return pairs.fit(list(usable(batch, pair_of_ids, refuse)), refuse)
    return pairs(list(usable(batch, partial(to_row, form=given.settings.format), refuse)), refuse)


def usable(batch: Iterable[ReadRow], make: Callable[[dict[str, Any], str], Made], refuse: Refuse) -> Iterator[Made]:
    """Yield what is made of each row, and refuse the rows of which nothing can be made."""
    for where, raw in batch:
        if isinstance(raw, RowError):
            refuse(raw)
            continue
        try:
            made = make(raw, where)
        except RowError as fault:
            refuse(fault)
            continue
        yield made
