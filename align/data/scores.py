"""Scores of completions, for objectives that need them."""

import datasets
import numpy as np
from numpy.typing import NDArray

from align.data.rows import DataError

COLUMNS = ("chosen_score", "rejected_score")
PART = 1000
"""Rows that are read at a time."""


def require_scores(dataset: datasets.Dataset, name: str) -> None:
    """Check that every pair has a score of both completions.

    Args:
        dataset: prepared pairs.
        name: what the data set is called in errors.

    Raises:
        DataError: naming the first pair that lacks one, and its column.
    """
    if not set(COLUMNS) <= set(dataset.column_names):
        raise _missing(name, " and ".join(repr(column) for column in COLUMNS))
    scores = dataset.select_columns(list(COLUMNS)).with_format("arrow")
    for number, table in enumerate(scores.iter(batch_size=PART)):
        absent = np.stack([np.isnan(table[column].to_numpy().astype(np.float64)) for column in COLUMNS])
        if absent.any():
            row = int(absent.any(0).argmax())
            place = dataset[number * PART + row].get("where") or f"{name} row {number * PART + row + 1}"
            raise _missing(
                place, " and ".join(repr(c) for c, gone in zip(COLUMNS, absent[:, row], strict=True) if gone)
            )


def columns_of(dataset: datasets.Dataset) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the scores of chosen and rejected."""
    table = dataset.select_columns(list(COLUMNS)).with_format("numpy")
    chosen, rejected = (np.asarray(table[column][:], dtype=np.float32) for column in COLUMNS)
    return chosen, rejected


def _missing(where: str, columns: str) -> DataError:
    return DataError(
        f"the objective needs a score of both completions, but there is none in {columns}",
        where=where,
        fix="write both as numbers in every row, map other columns to them with 'columns', let 'align data synth' make "
        "scored pairs, or use an objective that needs no scores, such as dpo",
    )
