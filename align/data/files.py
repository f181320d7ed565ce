"""Raw rows of one file: JSON lines, JSON, CSV (each also gzipped) and Parquet.

A place reads ``pairs.jsonl:17`` (line of the file, from 1) for JSON lines and CSV, ``pairs.json row 3`` (from 1)
for the others. Text is UTF-8, with or without a byte order mark; lines end in LF or CRLF. No file is held in memory.
A row that cannot be read is handed on as a fault with its place, and the rows behind it are read all the same; where
nothing behind a fault can be read (a gzip file that ends early, JSON that is one value), it is raised.
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

import ijson
import pyarrow
import pyarrow.parquet

from align.data.rows import DataError, RowError

RawRow = tuple[str, dict[str, Any]]
"""Place of a row, and its columns as they were read."""

ReadRow = tuple[str, dict[str, Any] | RowError]
"""Place of a row, and its columns or what keeps them from being read; reading goes on behind a fault."""

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


def reader_of(file: Path) -> Callable[[Path], Iterator[ReadRow]]:
    """Return the function that reads a file's rows one by one.

    It raises :class:`~align.data.rows.DataError` where a file is broken beyond one row, with the place.

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


def _read_jsonl(file: Path) -> Iterator[ReadRow]:
    for number, line in _lines(file):
        if line.strip():
            where = f"{file.name}:{number}"
            yield where, _json_row(line, where)


def _json_row(line: bytes, where: str) -> dict[str, Any] | RowError:
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        return not_utf8(line, error.start, where)
    text = text.rstrip("\r\n")
    try:
        return _as_row(json.loads(text), where)
    except (ValueError, RecursionError) as error:  # also numbers of thousands of digits
        reason = f"{error.msg}, column {error.colno}" if isinstance(error, json.JSONDecodeError) else str(error)
        fix = "a file that is one list of rows must be named .json" if text.lstrip().startswith("[") else ""
        return RowError("not_json", f"is no JSON ({reason})", where=where, fix=fix, text=text)


def _read_json(file: Path) -> Iterator[ReadRow]:
    number = 0
    key = _list_key(file)
    try:
        with _open(file) as stream:
            for value in ijson.items(_without_mark(stream), f"{key}.item" if key else "item", use_float=True):
                number += 1
                where = f"{file.name} row {number}"
                yield where, _as_row(value, where)
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise _broken_json(error, f"{file.name} row {number + 1}") from error


def _list_key(file: Path) -> str:
    """Return the key of the one list in the object that a file holds, or nothing where the file is a list itself."""
    depth, key, lists, first = 0, "", list[str](), ""
    try:
        with _open(file) as stream:
            for event, value in ijson.basic_parse(_without_mark(stream), use_float=True):
                first = first or event
                if first == "start_array":
                    return ""
                if depth == 1 and event == "map_key":
                    key = value
                elif event.startswith("start_"):
                    lists += [key] if depth == 1 and event == "start_array" else []
                    depth += 1
                elif event.startswith("end_"):
                    depth -= 1
    except (ijson.JSONError, UnicodeDecodeError) as error:
        raise _broken_json(error, file.name) from error
    if len(lists) != 1:
        raise DataError(
            "holds neither a list of rows nor an object with exactly one list",
            where=file.name,
            fix="if it has an object a line, name it .jsonl",
        )
    return lists[0]


def _broken_json(error: Exception, where: str) -> DataError:
    reason = " ".join(str(error).partition("(right here)")[0].split())
    return DataError(f"is no JSON ({reason})", where=where, fix="if the file has an object a line, name it .jsonl")


def _without_mark(stream: IO[bytes]) -> IO[bytes]:
    if stream.read(len(codecs.BOM_UTF8)) != codecs.BOM_UTF8:
        stream.seek(0)
    return stream


def _read_csv(file: Path) -> Iterator[ReadRow]:
    csv.field_size_limit(LONGEST_CELL)
    # What is no UTF-8 goes through the csv module as surrogates, and is found again in the cells.
    reader = csv.reader((line.decode("utf-8", "surrogateescape") for _, line in _lines(file)), strict=True)
    header = _csv_header(reader, file)
    while True:
        where = f"{file.name}:{reader.line_num + 1}"
        try:
            cells = next(reader, None)
        except csv.Error as error:
            # Where a quote is broken, nothing behind it can be told from the cell it stands in.
            fix = "double the quotes inside cells, and put such cells in double quotes"
            raise DataError(f"is no CSV from here on ({error})", where=where, fix=fix) from error
        if cells is None:
            return
        if cells:
            yield where, _csv_row(cells, header, where)


def _csv_header(reader: Any, file: Path) -> list[str]:
    try:
        header: list[str] = next(reader, [])
        "".join(header).encode()
    except (csv.Error, UnicodeEncodeError) as error:
        raise DataError(f"is no CSV header ({error})", where=f"{file.name}:1") from error
    if not header or len(set(header)) < len(header):
        raise DataError("must name its columns, each once", where=f"{file.name}:1")
    return header


def _csv_row(cells: list[str], header: list[str], where: str) -> dict[str, Any] | RowError:
    text = ",".join(cells)
    try:
        text.encode()
    except UnicodeEncodeError:
        return not_utf8(text.encode("utf-8", "surrogateescape"), 0, where)
    if len(cells) != len(header):
        return RowError(
            "not_csv",
            f"has {len(cells)} cells where the header has {len(header)}",
            where=where,
            fix="put cells that hold commas, quotes or line breaks in double quotes",
            text=text,
        )
    return dict(zip(header, cells, strict=True))


def _read_parquet(file: Path) -> Iterator[ReadRow]:
    number = 0
    with _parquet(file) as opened:
        for batch in opened.iter_batches(batch_size=1000):
            for row in _batch_rows(batch):
                number += 1
                where = f"{file.name} row {number}"
                yield where, row if isinstance(row, dict) else not_utf8(row, 0, where)


def _batch_rows(batch: Any) -> Iterator[dict[str, Any] | bytes]:
    """Yield the rows of a batch; in place of one whose text is no UTF-8, what could not be decoded."""
    try:
        yield from batch.to_pylist()
        return
    except UnicodeDecodeError:
        pass
    for index in range(len(batch)):
        try:
            yield batch.slice(index, 1).to_pylist()[0]
        except UnicodeDecodeError as error:
            yield bytes(error.object)


READERS: dict[str, Callable[[Path], Iterator[ReadRow]]] = {
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".csv": _read_csv,
    ".parquet": _read_parquet,
}


def _lines(file: Path) -> Iterator[tuple[int, bytes]]:
    with _open(file) as stream:
        for number, line in enumerate(stream, 1):
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise DataError("is UTF-16 text", where=file.name, fix="save the file as UTF-8")
            yield number, line.removeprefix(codecs.BOM_UTF8) if number == 1 else line


def not_utf8(line: bytes, start: int, where: str) -> RowError:
    """Return the fault of a line that is no UTF-8, with the first byte at or behind ``start`` that is not."""
    try:
        line[start:].decode("utf-8")
        position = start
    except UnicodeDecodeError as error:
        position = start + error.start
    problem = f"is not UTF-8 text (byte {line[position]:#04x} at {position})" if line else "is not UTF-8 text"
    text = line.decode("utf-8", "backslashreplace").rstrip("\r\n")
    return RowError("not_utf8", problem, where=where, fix="save the file as UTF-8", text=text)


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
    except (pyarrow.ArrowException, OSError) as error:
        raise DataError(f"is no Parquet file that can be read ({error})", where=file.name) from error


def _as_row(value: Any, where: str) -> dict[str, Any] | RowError:
    if isinstance(value, dict):
        return value
    problem = f"must be an object with columns, got {type(value).__name__}"
    return RowError("not_json", problem, where=where, text=json.dumps(value, default=str))
