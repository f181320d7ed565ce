"""The values behind a chart, as a table for people who do not see it, or want the numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from align.report.run_record import RunRecord
from align.report.samples import spaced
from align.report.series import Rows, Series, series

MOST_ROWS = 120


@dataclass(frozen=True, slots=True)
class Table:
    """Headings and rows of text.

    Attributes:
        heads: of the columns.
        rows: cells as shown; empty text where there is no value.
        left_out: how many rows were thinned out, evenly.
    """

    heads: Sequence[str]
    rows: Sequence[Sequence[str]]
    left_out: int = 0

    @classmethod
    def of(cls, heads: Sequence[str], rows: Sequence[Sequence[Any]]) -> "Table":
        """Return a table of values, at most :data:`MOST_ROWS` rows of them, first and last kept."""
        shown = spaced(rows, MOST_ROWS)
        return cls(heads, [[cell(value) for value in row] for row in shown], len(rows) - len(shown))


def cell(value: Any) -> str:
    """Return a value as text, numbers with five digits that count.

    Examples:
        >>> [cell(value) for value in (None, 12.0, -60.123456, 1e-05, "a")]
        ['', '12', '-60.123', '1e-05', 'a']
    """
    if value is None:
        return ""
    return value if isinstance(value, str) else f"{value:.5g}" if abs(value) < 1e5 else f"{value:.0f}"


def table_of_rows(rows: Rows, keys: Sequence[str]) -> Table:
    """Return what was logged of the metrics, a row a step."""
    return _by_step([(key, rows, key) for key in keys])


def table_of_series(found: Mapping[str, Series]) -> Table:
    """Return columns over their steps."""
    known = {head: dict(zip(line.steps, line.values, strict=True)) for head, line in found.items()}
    steps = sorted({step for column in known.values() for step in column})
    return Table.of(("step", *known), [(step, *(column.get(step) for column in known.values())) for step in steps])


def table_of_overlay(runs: Sequence[RunRecord], keys: Sequence[str]) -> Table:
    """Return what all runs logged of the metrics, a row a step and a column a run and metric."""
    return _by_step([(f"{run.name}: {key}", run.rows, key) for run in runs for key in keys])


def table_of_rewards(summary: Mapping[str, Any]) -> Table:
    """Return mean rewards with their intervals."""
    ends = ("value", "low", "high")
    rows = [(name, *(summary["reward"][name][end] for end in ends)) for name in ("base", "aligned", "difference")]
    return Table.of(("", "mean", "low", "high"), rows)


def table_of_values(values: Mapping[str, Sequence[float]]) -> Table:
    """Return columns of values, as they are in the file."""
    rows = [(number, *row) for number, row in enumerate(zip(*values.values(), strict=True), start=1)]
    return Table.of(("sample", *values), rows)


def _by_step(columns: Sequence[tuple[str, Rows, str]]) -> Table:
    found = {head: series(rows, key) for head, rows, key in columns}
    return table_of_series({head: line for head, line in found.items() if len(line)})
