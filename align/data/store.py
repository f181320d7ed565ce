"""Prepared rows on disk: the Arrow file, what became of the rows, and the rows that were skipped."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import datasets
import pyarrow
import pyarrow.ipc
from datasets.arrow_writer import ArrowWriter

from align.data.bad_rows import BadRows, read_skipped
from align.data.cache import written_whole
from align.data.inputs import ID_COLUMNS, UNPAIRED_ID_COLUMNS
from align.data.rows import DataError
from align.data.tokenize import Counts, PairTokenizer
from align.data.tokens import PromptTokens
from align.data.truncate import Truncation

SHARED_FEATURES = {
    "length": datasets.Value("int32"),
    "weight": datasets.Value("float32"),
    "where": datasets.Value("string"),
    "prompt_hash": datasets.Value("string"),
}
FEATURES = {
    **dict.fromkeys(ID_COLUMNS, datasets.List(datasets.Value("int32"))),
    "chosen_score": datasets.Value("float32"),
    "rejected_score": datasets.Value("float32"),
    **SHARED_FEATURES,
}
"""Columns of prepared pairs."""
UNPAIRED_FEATURES = {
    **dict.fromkeys(UNPAIRED_ID_COLUMNS, datasets.List(datasets.Value("int32"))),
    "desirable": datasets.Value("bool"),
    **SHARED_FEATURES,
}
"""Columns of prepared single completions."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PreparationReport:
    """What became of the rows; as :class:`~align.data.tokenize.Counts`, with the settings it was done under.

    Attributes:
        rows: rows read, after shares; a pair that is taken apart is two.
        pairs: pairs kept.
        skipped: rows left out because they could not be used, by kind of fault.
        truncated: rows that were cut.
        dropped: rows left out for their length.
        silent: rows in which a completion says nothing (transcripts only).
        transcribed: conversations written as transcripts, because the tokenizer has no chat template.
        prompt_tokens: tokens of the prompts kept, each counted once.
        chosen_tokens: tokens of the chosen completions kept.
        rejected_tokens: tokens of the rejected completions kept.
        max_length: longest prompt + completion, in tokens; None for no limit.
        truncation: what was done with longer ones.
        sources: names that places begin with.
        desirable: single completions kept that are desirable.
        undesirable: single completions kept that are not.
        desirable_tokens: tokens of the former.
        undesirable_tokens: tokens of the latter.
    """

    rows: int
    pairs: int
    truncated: int
    dropped: int
    silent: int
    transcribed: int
    skipped: Mapping[str, int]
    prompt_tokens: int
    chosen_tokens: int
    rejected_tokens: int
    max_length: int | None
    truncation: Truncation
    sources: Sequence[str]
    desirable: int = 0
    undesirable: int = 0
    desirable_tokens: int = 0
    undesirable_tokens: int = 0

    @property
    def unpaired(self) -> bool:
        """Whether the rows are single completions."""
        return self.desirable + self.undesirable > 0

    @property
    def truncated_share(self) -> float:
        """Rows cut, as a share of the rows."""
        return self.truncated / self.rows

    @property
    def skipped_rows(self) -> int:
        """Rows left out because they could not be used."""
        return sum(self.skipped.values())


def noun_of(columns: Iterable[str]) -> str:
    """Return what rows with such columns are called, a pair or a completion."""
    return "pair" if "chosen_ids" in columns else "completion"


def describe(report: PreparationReport) -> str:
    """Return a report in one line: rows kept, share that was cut and how, rows dropped, rows skipped and why."""
    limit = "no limit" if report.max_length is None else f"{report.max_length} tokens"
    labels = f"{report.desirable:,} desirable, {report.undesirable:,} undesirable"
    parts = [
        f"{report.desirable + report.undesirable:,} completions ({labels})"
        if report.unpaired
        else f"{report.pairs:,} pairs",
        f"{100 * report.truncated_share:.1f} % truncated ({report.truncation}, {limit})",
        f"{report.dropped:,} dropped",
    ]
    if report.skipped:
        kinds = ", ".join(f"{count:,} {kind}" for kind, count in report.skipped.items())
        parts.append(f"{report.skipped_rows:,} bad rows skipped ({kinds})")
    if report.silent:
        parts.append(f"{report.silent:,} with a completion that says nothing")
    if report.transcribed:
        parts.append(
            f"{report.transcribed:,} written as 'Human:'/'Assistant:' transcripts, for want of a chat template"
        )
    return "; ".join(parts)


@dataclass(frozen=True, slots=True)
class Store:
    """Files of one key: rows, report, and skipped rows if there are any.

    Attributes:
        file: the Arrow file.
        names: what the sources are called now; places in the files begin with what they were called then.
        features: columns of the Arrow file.
    """

    file: Path
    names: Sequence[str]
    features: Mapping[str, Any] = field(default_factory=lambda: FEATURES)

    def is_whole(self) -> bool:
        """Whether the files are there, under the sources' present names."""
        if not (self.file.is_file() and self._report_file.is_file()):
            return False
        then = self.report().sources
        if list(then) == list(self.names):
            return True
        if len(set(zip(then, self.names, strict=True))) > len(set(then)):
            return False  # two sources that had one name now have two: what is whose is not known
        self._relabel(dict(zip(then, self.names, strict=True)))
        return True

    def report(self) -> PreparationReport:
        """Return what became of the rows."""
        return PreparationReport(**json.loads(self._report_file.read_text(encoding="utf-8")))

    def skipped(self) -> Path | None:
        """Return the file of skipped rows, or None where none were skipped."""
        return self._skipped_file if self.report().skipped else None

    def write(self, key: str, batches: Iterable[Sequence[PromptTokens]], pairs: PairTokenizer, bad: BadRows) -> None:
        """Write the rows of ``batches`` as they come, those that ``bad`` takes, and at the end what came of it.

        Raises:
            DataError: if no row is left.
        """
        with written_whole(self.file) as partial, written_whole(self._skipped_file) as skipped:
            with (
                skipped.open("w", encoding="utf-8") as bad.stream,
                ArrowWriter(path=str(partial), features=datasets.Features(self.features), fingerprint=key) as writer,
            ):
                for batch in batches:
                    writer.write_batch({name: [getattr(row, name) for row in batch] for name in self.features})
                writer.finalize()
            if not pairs.counts.kept:
                raise DataError(f"no {noun_of(self.features)} is left: the sources hold {_all_lost(pairs.counts, bad)}")
        if not bad.total:
            self._skipped_file.unlink()
        self._write_report(_report(pairs, bad, self.names))

    @property
    def _report_file(self) -> Path:
        return self.file.with_suffix(".json")

    @property
    def _skipped_file(self) -> Path:
        return self.file.with_suffix(".skipped.jsonl")

    def _write_report(self, report: PreparationReport) -> None:
        with written_whole(self._report_file) as partial:
            partial.write_text(json.dumps(asdict(report), indent=2) + "\n", encoding="utf-8")

    def _relabel(self, names: Mapping[str, str]) -> None:
        """Write the places again under the names that the sources have now."""
        with (
            pyarrow.memory_map(str(self.file)) as old,
            pyarrow.ipc.open_stream(old) as reader,
            written_whole(self.file) as partial,
            pyarrow.ipc.new_stream(str(partial), reader.schema) as writer,
        ):
            column = reader.schema.get_field_index("where")
            for batch in reader:
                places = [_renamed(where, names) for where in batch.column(column).to_pylist()]
                writer.write_batch(batch.set_column(column, reader.schema.field(column), pyarrow.array(places)))
        if (skipped := self.skipped()) is not None:
            with written_whole(self._skipped_file) as partial, partial.open("w", encoding="utf-8") as stream:
                stream.writelines(
                    replace(row, where=_renamed(row.where, names)).line() for row in read_skipped(skipped)
                )
        self._write_report(replace(self.report(), sources=list(self.names)))


PLACE = re.compile(r"(.*?)((?::| row )\d+(?: \((?:chosen|rejected)\))?)?", re.DOTALL)
"""Name of a source, and a place in it."""


def _renamed(where: str, names: Mapping[str, str]) -> str:
    name, place = PLACE.fullmatch(where).groups(default="")  # type: ignore[union-attr]
    return names.get(name, name) + place


def _all_lost(counts: Counts, bad: BadRows) -> str:
    lost = [f"{counts.dropped} dropped for their length"] if counts.dropped else []
    lost += [f"{bad.total} that cannot be used ({', '.join(bad.counts)}; the first: {bad.first})"] if bad.total else []
    return f"{counts.rows + bad.total} rows: {', '.join(lost)}" if lost else "no rows"


def _report(pairs: PairTokenizer, bad: BadRows, names: Sequence[str]) -> PreparationReport:
    counts = asdict(pairs.counts)
    counts["rows"] += bad.total
    return PreparationReport(
        **counts,
        pairs=pairs.counts.pairs,
        skipped=dict(bad.counts.most_common()),
        max_length=pairs.max_length,
        truncation=pairs.truncation,
        sources=list(names),
    )
