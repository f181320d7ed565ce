"""Sources of raw rows: files, folders saved by ``datasets``, hub names, and data handed over from Python.

Relative paths start at the folder the command is run in.
"""

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any

import datasets

from align.data.files import RawRow, ReadRow, kind_of, reader_of, rows_in
from align.data.rows import DataError, RowError
from align.objectives.registry import did_you_mean
from align.recipe.schema import SourceSettings

HUB_NAME = re.compile(r"[A-Za-z0-9][\w.-]*(/[\w.-]+)?")
SHARE_BLOCK = 1000
"""Rows among which a share is drawn at a time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenSource:
    """Rows that can be read again and again.

    Attributes:
        name: what places begin with.
        read: starts a new pass over the raw rows.
        content: returns a digest that changes with the content, and should with nothing else.
        count: returns the rows of one pass, or None where that cannot be told without parsing them.
        columns: names of the columns, where they are known without reading rows.
    """

    name: str
    read: Callable[[], Iterator[ReadRow]]
    content: Callable[[], str]
    count: Callable[[], int | None]
    columns: Sequence[str] = ()


def read_rows(source: SourceSettings) -> Iterator[RawRow]:
    """Read the raw rows of a source: the share that ``source.weight`` asks for, columns under our names.

    Returns:
        The place of a row (``pairs.jsonl:17``) and its columns; columns that are not renamed stay.

    Raises:
        DataError: if there is no such source, split or column, or its content is broken; the first fault ends it.
    """
    for where, row in rows_of(open_source(source), source):
        if isinstance(row, RowError):
            raise row
        yield where, row


def count_rows(source: SourceSettings) -> int | None:
    """Return how many rows a source gives, its share taken, or None where that cannot be told before reading them.

    A hub name is not asked: that would fetch it.

    Raises:
        DataError: as :func:`open_source`.
    """
    if source.path is not None and _is_hub_name(source.path):
        return None
    return share_of(open_source(source).count(), source.weight)


def share_of(count: int | None, share: float) -> int | None:
    """Return how many of so many rows :func:`take_share` takes."""
    return None if count is None else count * int(share) + int(share % 1 * count + 0.5)


def rows_of(opened: OpenSource, settings: SourceSettings) -> Iterator[ReadRow]:
    """Read the rows of an open source, the share that is asked for, columns under our names; faults are handed on."""
    for where, row in take_share(opened.read, settings.weight):
        yield where, row if isinstance(row, RowError) else rename_columns(row, settings.columns, where)


def open_source(source: SourceSettings) -> OpenSource:
    """Find what a source names, without reading its rows.

    Raises:
        DataError: if it is not there, is of no known kind, or ``split`` does not fit.
    """
    if source.path is None:
        raise DataError("a 'synth' source holds no rows to read", fix="make its pairs first and pass those")
    path = Path(source.path).expanduser()
    if path.is_file():
        return _open_file(path, source)
    if path.is_dir():
        return open_dataset(_load_folder(path, source), name=path.name or str(path))
    if not _is_hub_name(source.path):
        raise DataError(_missing(path))
    return open_dataset(_load_hub(source), name=source.path)


def open_dataset(dataset: datasets.Dataset, *, name: str) -> OpenSource:
    """Take the rows of a ``datasets.Dataset``; places read ``<name> row 3``, from 1."""
    plain = dataset.with_format(None)
    return OpenSource(
        name=name,
        read=lambda: ((f"{name} row {number}", row) for number, row in enumerate(plain, 1)),
        content=lambda: str(dataset._fingerprint),
        count=lambda: len(dataset),
        columns=dataset.column_names,
    )


def open_list(rows: Sequence[Mapping[str, Any]], *, name: str) -> OpenSource:
    """Take rows that are in memory; places read ``<name> row 3``, from 1."""

    def digest() -> str:
        return hashlib.sha256(json.dumps(rows, default=repr).encode()).hexdigest()

    return OpenSource(
        name=name,
        read=lambda: ((f"{name} row {number}", dict(row)) for number, row in enumerate(rows, 1)),
        content=digest,
        count=lambda: len(rows),
    )


def take_share(read: Callable[[], Iterator[ReadRow]], share: float) -> Iterator[ReadRow]:
    """Yield ``share`` times the rows: whole passes, then a random part of one more.

    The part is drawn with seed 0 from every block of 1,000 rows, in order, so that its size is exact (to half a
    row) for any source without counting it first, and the same on every machine.
    """
    whole, part = divmod(share, 1)
    for _ in range(int(whole)):
        yield from read()
    if part:
        yield from _random_part(read(), part)


def _random_part(rows: Iterator[ReadRow], part: float) -> Iterator[ReadRow]:
    # random() alone is promised to stay the same between versions of Python, sample() is not.
    generator = random.Random(0)
    seen = taken = 0
    while block := list(islice(rows, SHARE_BLOCK)):
        seen += len(block)
        wanted = int(part * seen + 0.5) - taken
        taken += wanted
        ranks = [generator.random() for _ in block]
        picked = sorted(range(len(block)), key=ranks.__getitem__)[:wanted]
        yield from (block[index] for index in sorted(picked))


def rename_columns(row: dict[str, Any], columns: Mapping[str, str], where: str) -> dict[str, Any] | RowError:
    """Return the row with our names for their columns, or its fault; ``columns`` maps ours to theirs."""
    for theirs in columns.values():
        if theirs not in row:
            problem = f"there is no column {theirs!r} (columns: {', '.join(row)}){_nearest(theirs, row)}"
            return RowError("missing", problem, where=where)
    return {**row, **{ours: row[theirs] for ours, theirs in columns.items()}}


def _is_hub_name(path: str) -> bool:
    on_disk = Path(path).expanduser().exists()
    return not on_disk and kind_of(Path(path).name) is None and HUB_NAME.fullmatch(path) is not None


def _open_file(file: Path, source: SourceSettings) -> OpenSource:
    reader = reader_of(file)
    if source.split is not None:
        raise DataError(f"a file has no splits, but split is {source.split!r}", where=source.path or "")
    _refuse_config(source)
    return OpenSource(
        name=file.name,
        read=lambda: reader(file),
        content=lambda: _digest(file),
        count=lambda: rows_in(file),
    )


def _digest(file: Path) -> str:
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _load_folder(folder: Path, source: SourceSettings) -> datasets.Dataset:
    _refuse_config(source)
    if (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file():
        return _pick_split(datasets.load_from_disk(str(folder)), source)
    try:
        loaded = datasets.load_dataset(str(folder))
    except Exception as error:
        raise DataError(
            f"is a folder, but neither one saved by datasets.save_to_disk nor one that datasets.load_dataset reads "
            f"({error})",
            where=str(folder),
            fix="name one data file in it",
        ) from error
    return _pick_split(loaded, source)


def _load_hub(source: SourceSettings) -> datasets.Dataset:
    try:
        loaded = datasets.load_dataset(source.path, name=source.config, split=source.split)
    except Exception as error:
        raise DataError(
            f"{_missing(Path(source.path or '').expanduser())}; and the hub gave no such data set "
            f"({type(error).__name__}: {error})"
        ) from error
    return loaded if source.split is not None else _pick_split(loaded, source)


def _pick_split(loaded: Any, source: SourceSettings) -> datasets.Dataset:
    where = source.path or ""
    if not isinstance(loaded, datasets.DatasetDict):
        if source.split not in (None, str(loaded.split)):
            raise DataError(f"has no splits to choose from, but split is {source.split!r}", where=where)
        return loaded
    if source.split is None:
        if len(loaded) == 1:
            return next(iter(loaded.values()))
        raise DataError(f"has several splits ({', '.join(loaded)})", where=where, fix="name one with 'split'")
    if source.split not in loaded:
        raise DataError(f"has no split {source.split!r}" + did_you_mean(source.split, list(loaded)), where=where)
    return loaded[source.split]


def _refuse_config(source: SourceSettings) -> None:
    if source.config is not None:
        raise DataError(f"'config' is for hub names, but {source.path} is on this machine")


def _missing(path: Path) -> str:
    said = f"no file or folder {path.absolute()} (relative paths start at the folder the command is run in)"
    if not path.absolute().parent.is_dir():
        return f"{said}; its folder does not exist either"
    names = sorted(p.name for p in path.absolute().parent.iterdir() if p.is_dir() or kind_of(p.name))
    return said + _nearest(path.name, names)


def _nearest(word: str, names: Iterable[str]) -> str:
    near = get_close_matches(word, list(names), n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
