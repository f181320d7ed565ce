"""Raw rows of one file: JSON lines, JSON, CSV (each also gzipped) and Parquet.

A place reads ``pairs.jsonl:17`` (line of the file, from 1) for JSON lines and CSV, ``pairs.json row 3`` (from 1)
for the others. Text is UTF-8, with or without a byte order mark.
"""

import codecs
import csv
import gzip
import json
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import pyarrow
import pyarrow.parquet

from align.data.rows import DataError

RawRow = tuple[str, dict[str, Any]]
"""Place of a row, and its columns as they were read."""

LONGEST_CELL = 2**31 - 1
"""Characters of a CSV cell; the csv module's own limit of 128 Ki is too short for conversations."""


def kind_of(name: str) -> str | None:
    """Return the suffix that tells how a file is read, or None for a file that is not read.

    Examples:
        >>> kind_of("pairs.JSONL.gz"), kind_of("pairs.parquet.gz"), kind_of("pairs.txt")
        ('.jsonl', None, None)
    """
    lower = name.lower()
    suffix = Path(lower.removesuffix(".gz")).suffix
    return suffix if suffix in READERS and (suffix != ".parquet" or lower.endswith(suffix)) else None


def reader_of(file: Path) -> Callable[[Path], Iterator[RawRow]]:
    """Return the function that reads a file's rows one by one; only that of ``.json`` holds the file in memory.

    It raises :class:`~align.data.rows.DataError` at broken content, with the place.

    Raises:
        DataError: if the name of the file is that of no known kind.
    """
    kind = kind_of(file.name)
    if kind is None:
        raise DataError(
            "is no data file by its name", where=str(file), fix=f"use {', '.join(READERS)}, the text ones also with .gz"
        )
    return READERS[kind]


def rows_in(file: Path) -> int | None:
    """Return the number of rows where it can be told without parsing them (Parquet, JSON lines), else None."""
    kind = kind_of(file.name)
    if kind == ".parquet":
        with _parquet(file) as opened:
            return int(opened.metadata.num_rows)
    if kind == ".jsonl":
        with _open(file) as stream:
            return sum(1 for line in stream if line.strip())
    return None


def _read_jsonl(file: Path) -> Iterator[RawRow]:
    for number, line in _lines(file):
        where = f"{file.name}:{number}"
        if line.strip():
            yield where, _as_row(_parse(line, where), where)


def _read_json(file: Path) -> Iterator[RawRow]:
    content = _parse("".join(line for _, line in _lines(file)), file.name)
    if isinstance(content, dict):
        lists = [value for value in content.values() if isinstance(value, list)]
        content = lists[0] if len(lists) == 1 else None
    if not isinstance(content, list):
        raise DataError(
            "holds neither a list of rows nor an object with exactly one list",
            where=file.name,
            fix="if it has an object a line, name it .jsonl",
        )
    for number, value in enumerate(content, 1):
        where = f"{file.name} row {number}"
        yield where, _as_row(value, where)


def _read_csv(file: Path) -> Iterator[RawRow]:
    csv.field_size_limit(LONGEST_CELL)
    reader = csv.reader((line for _, line in _lines(file)), strict=True)
    header = _cells(reader, file) or []
    if not header or len(set(header)) < len(header):
        raise DataError("must name its columns, each once", where=f"{file.name}:1")
    start = reader.line_num + 1
    while (cells := _cells(reader, file)) is not None:
        if cells and len(cells) != len(header):
            raise DataError(
                f"has {len(cells)} cells where the header has {len(header)}",
                where=f"{file.name}:{start}",
                fix="put cells that hold commas, quotes or line breaks in double quotes",
            )
        if cells:
            yield f"{file.name}:{start}", dict(zip(header, cells, strict=True))
        start = reader.line_num + 1


def _read_parquet(file: Path) -> Iterator[RawRow]:
    number = 0
    with _parquet(file) as opened:
        for batch in opened.iter_batches(batch_size=1000):
            for row in batch.to_pylist():
                number += 1
                yield f"{file.name} row {number}", row


READERS: dict[str, Callable[[Path], Iterator[RawRow]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _lines(file: Path) -> Iterator[tuple[int, str]]:
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            text = line.removeprefix(codecs.BOM_UTF8) if number == 1 else line
            try:
                yield number, text.decode("utf-8")
            except UnicodeDecodeError as error:
                problem = f"is not UTF-8 text (byte {text[error.start]:#04x} at {error.start})"
                raise DataError(problem, where=f"{file.name}:{number}", fix="save the file as UTF-8") from error


@contextmanager
def _open(file: Path) -> Iterator[IO[bytes]]:
    try:
        with gzip.open(file, "rb") if file.suffix.lower() == ".gz" else file.open("rb") as stream:
            yield cast(IO[bytes], stream)
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        problem = f"is no whole gzip file ({error})"
        raise DataError(problem, where=file.name, fix="fetch it again, or drop .gz from its name") from error


@contextmanager
def _parquet(file: Path) -> Iterator[Any]:
    try:
        with pyarrow.parquet.ParquetFile(file) as opened:
            yield opened
    except pyarrow.ArrowException as error:
        raise DataError(f"is no Parquet file that can be read ({error})", where=file.name) from error


def _cells(reader: Any, file: Path) -> list[str] | None:
    try:
        cells: list[str] | None = next(reader, None)
    except csv.Error as error:
        raise DataError(f"is no CSV ({error})", where=f"{file.name}:{max(reader.line_num, 1)}") from error
    return cells


def _parse(text: str, where: str) -> Any:
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        raise DataError(f"is no JSON ({error})", where=where) from error


def _as_row(value: Any, where: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise DataError(f"must be an object with columns, got {type(value).__name__}", where=where)
    return value
