"""Rows counted before any model is loaded: how many can be used, and what is wrong with the others."""

from dataclasses import asdict, dataclass, field
from itertools import islice
from typing import Any

from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from align.data.inputs import inputs_of
from align.data.prepare import BATCH, usable
from align.data.rows import RowError
from align.data.shapes import COMPLETIONS, shape_of
from align.data.sources import rows_of
from align.data.tokenize import PairTokenizer
from align.data.truncate import Truncation
from align.recipe.schema import SourceSettings

PLACES = 10
"""Places that are named of each kind of fault."""


@dataclass(slots=True)
class Fault:
    """Rows with one kind of fault.

    Attributes:
        count: how many.
        places: the first of them.
        example: what is said of the first.
    """

    count: int = 0
    places: list[str] = field(default_factory=list)
    example: str = ""

    def add(self, fault: RowError) -> None:
        """Count one more."""
        self.count += 1
        self.example = self.example or str(fault)
        if len(self.places) < PLACES:
            self.places.append(fault.where)


@dataclass(slots=True, kw_only=True)
class CheckReport:
    """What a source holds.

    Attributes:
        source: its name.
        unpaired: whether its rows are single completions with a label.
        rows: rows read.
        faults: rows that cannot be used, by kind (:data:`~align.data.rows.KINDS`).
        tokenised: whether a tokenizer was there; without one, templates and lengths are not looked at.
        truncated: rows that would be cut.
        dropped: rows that would be left out for their length.
    """

    source: str
    unpaired: bool = False
    rows: int = 0
    faults: dict[str, Fault] = field(default_factory=dict)
    tokenised: bool = False
    truncated: int = 0
    dropped: int = 0

    @property
    def bad(self) -> int:
        """Rows that cannot be used."""
        return sum(fault.count for fault in self.faults.values())

    def refuse(self, fault: RowError) -> None:
        """Count a row that cannot be used."""
        self.faults.setdefault(fault.kind, Fault()).add(fault)

    def as_mapping(self) -> dict[str, Any]:
        """Return plain data for JSON."""
        return {**asdict(self), "bad": self.bad, "usable": self.rows - self.bad}


def check_rows(
    source: SourceSettings,
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    max_length: int | None = 1024,
    truncation: Truncation = "keep_start",
) -> CheckReport:
    """Read every row of a source and count those that cannot be used.

    A source whose first row has ``completion`` and ``label`` and no pair is read as single completions.

    Args:
        source: as in a recipe.
        tokenizer: of the model that would be trained; without one, neither the chat template nor lengths are tried.
        max_length: as in a recipe.
        truncation: as in a recipe.

    Raises:
        DataError: if the source is not there, or is broken beyond single rows.
    """
    (given,) = inputs_of(source, "rows")
    shape = shape_of(given)
    report = CheckReport(source=given.source.name, unpaired=shape is COMPLETIONS, tokenised=tokenizer is not None)
    pairs = PairTokenizer(tokenizer, max_length=max_length, truncation=truncation) if tokenizer is not None else None
    rows = rows_of(given.source, given.settings)
    with tqdm(total=given.rows, desc="checking", unit=" rows") as bar:
        while batch := list(islice(rows, BATCH)):
            report.rows += len(batch)
            if given.tokenised:
                found = list(usable(batch, shape.from_ids, report.refuse))
                if pairs is not None:
                    pairs.fit(found, report.refuse)
            else:
                made = list(usable(batch, shape.reader(given.settings.format), report.refuse))
                if pairs is not None:
                    pairs(made, report.refuse)
            bar.update(len(batch))
    if pairs is not None:
        report.truncated, report.dropped = pairs.counts.truncated, pairs.counts.dropped
    report.faults = dict(sorted(report.faults.items(), key=lambda item: -item[1].count))
    return report
