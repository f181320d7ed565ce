"""Prepared pairs: read, tokenised, kept on disk under a key of their content, read from there the next time."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import datasets
from datasets.arrow_writer import ArrowWriter
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from align.data.cache import cache_root, key_of, tokenizer_state, written_whole
from align.data.formats import to_row
from align.data.inputs import ID_COLUMNS, Input, inputs_of, pair_of_ids
from align.data.rows import DataError
from align.data.sources import rows_of
from align.data.tokenize import PairTokenizer
from align.data.truncate import TokenPair, Truncation
from align.recipe.schema import SourceSettings

BATCH = 1000
"""Rows that are tokenised by one call."""

FEATURES = {
    **dict.fromkeys(ID_COLUMNS, datasets.List(datasets.Value("int32"))),
    "length": datasets.Value("int32"),
    "weight": datasets.Value("float32"),
    "where": datasets.Value("string"),
    "prompt_hash": datasets.Value("string"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationReport:
    """What became of the rows; as :class:`~align.data.tokenize.Counts`, with the settings it was done under.

    Attributes:
        rows: rows read, after shares.
        pairs: pairs kept.
        truncated: pairs that were cut.
        dropped: pairs left out for their length.
        silent: rows in which a completion says nothing (transcripts only).
        prompt_tokens: tokens of the prompts kept, each counted once.
        chosen_tokens: tokens of the chosen completions kept.
        rejected_tokens: tokens of the rejected completions kept.
        max_length: longest prompt + completion, in tokens; None for no limit.
        truncation: what was done with longer ones.
    """

    rows: int
    pairs: int
    truncated: int
    dropped: int
    silent: int
    prompt_tokens: int
    chosen_tokens: int
    rejected_tokens: int
    max_length: int | None
    truncation: Truncation

    @property
    def truncated_share(self) -> float:
        """Pairs cut, as a share of the rows."""
        return self.truncated / self.rows


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparedPairs:
    """Pairs ready for :class:`~align.data.collate.PairCollator`.

    Attributes:
        dataset: on disk, not in memory; columns ``prompt_ids``, ``chosen_ids``, ``rejected_ids``, ``length``
            (tokens of the longer side, for grouping by length), ``weight``, ``where`` and ``prompt_hash``. Its
            fingerprint is the key of its content.
        report: what became of the rows.
        cached: whether nothing had to be tokenised.
    """

    dataset: datasets.Dataset
    report: PreparationReport
    cached: bool = False


def prepare_pairs(
    sources: SourceSettings | Sequence[SourceSettings] | datasets.Dataset | Iterable[Any],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_length: int | None = 1024,
    truncation: Truncation = "keep_start",
    cache_dir: Path | None = None,
    name: str = "train_dataset",
) -> PreparedPairs:
    """Prepare the pairs of sources, one after the other, or take them from the cache.

    The key of the cache is made of the content (bytes of local files, fingerprints of data sets), of how it is read
    (format, columns, share), of the tokenizer (rules, special tokens, chat template) and of the settings here.

    Args:
        sources: sources, data sets, or both mixed; or rows as dicts. A data set with ``prompt_ids``, ``chosen_ids``
            and ``rejected_ids`` is taken as tokenised, special tokens and all, and only cut to length.
        tokenizer: of the model that is trained.
        max_length: longest prompt + completion, in tokens; None is the tokenizer's own limit.
        truncation: what to do with longer ones, see :func:`~align.data.truncate.truncate`.
        cache_dir: folder of the cache; ``prepared`` in :func:`~align.data.cache.cache_root` by default.
        name: how places in data sets and rows begin, ``train_dataset row 3``.

    Raises:
        DataError: if a source is not there or a row cannot be used, with its place; or if no pair is left.
    """
    inputs = inputs_of(sources, name)
    pairs = PairTokenizer(tokenizer, max_length=max_length, truncation=truncation)
    settings = {"max_length": pairs.max_length, "truncation": truncation}
    key = key_of({"inputs": [i.key for i in inputs], "tokenizer": tokenizer_state(tokenizer), **settings})
    file = (cache_dir or cache_root() / "prepared") / f"{key}.arrow"
    cached = file.is_file() and file.with_suffix(".json").is_file()
    if not cached:
        _write(file, key, inputs, pairs)
    report = PreparationReport(**json.loads(file.with_suffix(".json").read_text(encoding="utf-8")))
    return PreparedPairs(dataset=datasets.Dataset.from_file(str(file)), report=report, cached=cached)


def describe(report: PreparationReport) -> str:
    """Return a report in one line: pairs, share that was cut and how, pairs dropped."""
    limit = "no limit" if report.max_length is None else f"{report.max_length} tokens"
    line = (
        f"{report.pairs:,} pairs; {100 * report.truncated_share:.1f} % truncated ({report.truncation}, {limit}); "
        f"{report.dropped:,} dropped"
    )
    return f"{line}; {report.silent:,} with a completion that says nothing" if report.silent else line


def split_by_prompt(prepared: PreparedPairs, fraction: float) -> tuple[datasets.Dataset, datasets.Dataset]:
    """Hold out about ``fraction`` of the prompts, with all their pairs.

    Which ones follows from a hash of a prompt's text alone: the same on every machine, for every tokenizer, order
    and amount of other data. A prompt is never on both sides.

    Returns:
        The pairs to train on, and those held out.

    Raises:
        DataError: if either side would be empty.
    """
    hashes = prepared.dataset.with_format(None)["prompt_hash"]
    out = [int(digest[:8], 16) < fraction * 16**8 for digest in hashes]
    if all(out) or not any(out):
        side = "to train on" if all(out) else "held out"
        raise DataError(
            f"eval_fraction {fraction} of {len(set(hashes))} prompts leaves no pair {side}",
            fix="change it, or give 'eval'",
        )
    train, held_out = ([i for i, flag in enumerate(out) if flag is side] for side in (False, True))
    return prepared.dataset.select(train), prepared.dataset.select(held_out)


def _write(file: Path, key: str, inputs: Sequence[Input], pairs: PairTokenizer) -> None:
    with written_whole(file) as partial:
        with ArrowWriter(path=str(partial), features=datasets.Features(FEATURES), fingerprint=key) as writer:
            for batch in _tokenised(inputs, pairs):
                writer.write_batch(_columns(batch))
            writer.finalize()
        if not pairs.counts.pairs:
            read = f"{pairs.counts.rows} rows, all dropped for their length" if pairs.counts.rows else "no rows"
            raise DataError(f"no pair is left: the sources hold {read}")
        _write_report(file.with_suffix(".json"), pairs)


def _write_report(file: Path, pairs: PairTokenizer) -> None:
    counts = asdict(pairs.counts)
    report = PreparationReport(
        **counts, pairs=pairs.counts.pairs, max_length=pairs.max_length, truncation=pairs.truncation
    )
    with written_whole(file) as partial:
        partial.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")


def _tokenised(inputs: Sequence[Input], pairs: PairTokenizer) -> Iterator[list[TokenPair]]:
    counts = [i.rows for i in inputs]
    total = None if None in counts else sum(count or 0 for count in counts)
    with tqdm(total=total, desc="tokenizing", unit=" rows") as bar:
        for each in inputs:
            rows = rows_of(each.source, each.settings)
            while batch := list(islice(rows, BATCH)):
                yield _tokenise(batch, each, pairs)
                bar.update(len(batch))


def _tokenise(batch: Sequence[tuple[str, dict[str, Any]]], given: Input, pairs: PairTokenizer) -> list[TokenPair]:
    if given.tokenised:
        return pairs.fit([pair_of_ids(raw, where) for where, raw in batch])
    return pairs([to_row(raw, where, given.settings.format) for where, raw in batch])


def _columns(pairs: Sequence[TokenPair]) -> Mapping[str, list[Any]]:
    return {column: [getattr(pair, column) for pair in pairs] for column in FEATURES}
