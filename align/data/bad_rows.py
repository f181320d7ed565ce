"""What becomes of rows that cannot be used: the first ends the work, or all are left out and written down."""

import json
import re
import shutil
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal, cast, get_args

from align.data.rows import Kind, RowError

OnBadRow = Literal["fail", "skip"]
CHOICES: tuple[str, ...] = get_args(OnBadRow)


@dataclass(frozen=True, slots=True, kw_only=True)
class SkippedRow:
    """A row that was left out.

    Attributes:
        where: place of the row.
        kind: one of :data:`~align.data.rows.KINDS`.
        problem: what is wrong with it.
        column: the column it is in, if it is in one.
        fix: what would likely mend it.
        row: its columns; absent where it could not be read.
        text: what the file holds there, where it could not be read as a row.
    """

    where: str
    kind: str
    problem: str
    column: str = ""
    fix: str = ""
    row: dict[str, Any] | None = None
    text: str | None = None

    @classmethod
    def of(cls, fault: RowError, row: dict[str, Any] | None) -> "SkippedRow":
        """Return the record of a fault."""
        return cls(
            where=fault.where,
            kind=fault.kind,
            problem=fault.problem,
            column=fault.column,
            fix=fault.fix,
            row=row,
            text=fault.text,
        )

    @property
    def fault(self) -> RowError:
        """The fault that was recorded."""
        return RowError(
            cast(Kind, self.kind), self.problem, where=self.where, column=self.column, fix=self.fix, text=self.text
        )

    def line(self) -> str:
        """Return the record as a line of JSON, without what is absent."""
        parts = {name: getattr(self, name) for name in self.__slots__}
        known = {name: value for name, value in parts.items() if value not in (None, "")}
        # Half a character, which no file can hold, becomes its escape.
        return json.dumps(known, ensure_ascii=False, default=str).encode("utf-8", "backslashreplace").decode() + "\n"


@dataclass(slots=True, kw_only=True)
class BadRows:
    """Takes every fault of a pass over rows.

    Attributes:
        on_bad_row: ``fail`` raises the first, ``skip`` counts it and goes on.
        stream: where skipped rows are written, a line of JSON each, or None for nowhere.
        counts: rows skipped so far, by kind.
        first: the fault of the first of them.
    """

    on_bad_row: OnBadRow = "fail"
    stream: IO[str] | None = None
    counts: Counter[str] = field(default_factory=Counter)
    first: RowError | None = None

    def __post_init__(self) -> None:
        if self.on_bad_row not in CHOICES:
            raise ValueError(f"on_bad_row must be one of {', '.join(CHOICES)}; got {self.on_bad_row!r}")

    def take(self, fault: RowError, row: dict[str, Any] | None) -> None:
        """Take a fault and the row that has it.

        Raises:
            RowError: the fault itself, where the first bad row ends the work.
        """
        if self.on_bad_row == "fail":
            raise with_way_out(fault)
        self.counts[fault.kind] += 1
        self.first = self.first or fault
        if self.stream is not None:
            self.stream.write(SkippedRow.of(fault, row).line())

    @property
    def total(self) -> int:
        """Rows skipped so far."""
        return sum(self.counts.values())


def with_way_out(fault: RowError) -> RowError:
    """Return the fault that ends the work: its kind named, and what can be done besides mending the row."""
    fix = f"{fault.fix}, or leave bad rows out with" if fault.fix else "leave bad rows out with"
    return RowError(
        fault.kind,
        fault.problem,
        where=fault.where,
        column=fault.column,
        fix=f"{fix} on_bad_row: skip (kind of fault: {fault.kind}; `align data check` counts them all)",
        text=fault.text,
    )


def read_skipped(file: Path) -> Iterator[SkippedRow]:
    """Yield the records of a file that :class:`BadRows` wrote."""
    with file.open(encoding="utf-8") as stream:
        for line in stream:
            yield SkippedRow(**json.loads(line))


def skipped_beside(folder: Path, name: str) -> Path:
    """Return where a run's folder has the rows that were skipped of a data set."""
    plain = re.sub(r"\W+", "-", name).strip("-")
    return folder / f"skipped-{plain}.jsonl"


def copy_skipped(skipped: Path | None, to: Path) -> Path | None:
    """Copy a file of skipped rows beside a run, in place of the one that the same run wrote before.

    Returns:
        Where it is now, or None where no row was skipped.
    """
    if skipped is None:
        to.unlink(missing_ok=True)
        return None
    to.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(skipped, to)
    return to
