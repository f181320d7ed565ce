"""Token log-probabilities of sequences under a model that does not change: on disk, found by what they are of.

A folder belongs to one model and one way of computing; in it every sequence of ids stands by itself, so that rows that
are added, left out, or come in another order cost nothing but themselves. It is written shard by shard as it goes.
"""

import hashlib
import math
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from align.data.cache import written_whole

PromptAndCompletion = tuple[Sequence[int], Sequence[int]]
"""Ids of a prompt and of a completion."""
DIGEST = 16
"""Bytes of a sequence's key."""
PARTS = ("values", "ends", "keys")
"""Files of a shard; the keys come last, and a shard without them is none."""


class MissingSequencesError(LookupError):
    """A store lacks sequences that are asked for."""


class LogpStore:
    """The log-probabilities that are in a folder.

    Args:
        folder: need not be there yet.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.reload()

    def __reduce__(self) -> tuple[Any, ...]:
        return LogpStore, (self.folder,)  # a process that loads batches opens the files itself

    def __len__(self) -> int:
        return len(self._keys)

    def reload(self) -> None:
        """Look for what was written since, by this process or another."""
        names = sorted(file.name.removesuffix(".keys.npy") for file in self.folder.glob("*.keys.npy"))
        keys = [np.load(self._file(name, "keys")) for name in names]
        found = np.concatenate(keys) if keys else np.empty((0, DIGEST), dtype=np.uint8)
        shard = np.repeat(np.arange(len(names)), [len(each) for each in keys])
        place = np.concatenate([np.arange(len(each)) for each in keys]) if keys else np.empty(0, dtype=np.int64)
        as_one = np.ascontiguousarray(found).view(f"V{DIGEST}").reshape(-1)
        order = np.argsort(as_one, kind="stable")
        self._keys, self._shard, self._place = as_one[order], shard[order], place[order]
        self._ends = [np.load(self._file(name, "ends")) for name in names]
        self._values = [np.load(self._file(name, "values"), mmap_mode="r") for name in names]

    def missing(self, sequences: Sequence[PromptAndCompletion]) -> list[int]:
        """Return the numbers of the sequences that are not there, each once."""
        keys = np.concatenate([keys_of(part) for part in _parts(sequences)]) if sequences else _no_keys()
        there = self._find(keys)[1]
        seen: dict[bytes, int] = {}
        for number in np.flatnonzero(~there).tolist():
            seen.setdefault(keys[number].tobytes(), number)
        return list(seen.values())

    def add(self, sequences: Sequence[PromptAndCompletion], logps: Sequence[NDArray[np.float32]]) -> None:
        """Write sequences as a shard; :meth:`reload` finds them.

        Raises:
            ValueError: if a log-probability is no finite number.
        """
        if not all(np.isfinite(each).all() for each in logps):
            raise ValueError("log-probabilities that are not finite are not kept")
        name = uuid4().hex
        written: dict[str, NDArray[Any]] = {
            "values": np.concatenate(logps).astype(np.float32),
            "ends": np.cumsum([len(each) for each in logps]),
            "keys": np.frombuffer(keys_of(sequences).tobytes(), dtype=np.uint8).reshape(-1, DIGEST),
        }
        for part in PARTS:
            with written_whole(self._file(name, part)) as partial, partial.open("wb") as out:
                np.save(out, written[part])

    def get(self, sequences: Sequence[PromptAndCompletion]) -> list[NDArray[np.float32]]:
        """Return the log-probabilities of completions' tokens, in nats.

        Raises:
            MissingSequencesError: if some are not there.
        """
        rows, there = self._find(keys_of(sequences))
        if not there.all():
            raise MissingSequencesError(f"{int((~there).sum())} of {len(there)} sequences are not in {self.folder}")
        return [self._one(int(self._shard[row]), int(self._place[row])) for row in rows]

    def padded(self, sequences: Sequence[PromptAndCompletion]) -> Tensor:
        """Return the same as one table, NaN beyond the end of each.

        Raises:
            MissingSequencesError: as :meth:`get`.
        """
        found = self.get(sequences)
        table = torch.full((len(found), max(map(len, found))), math.nan)
        for row, values in zip(table, found, strict=True):
            row[: len(values)] = torch.from_numpy(values.copy())
        return table

    def drop(self) -> None:
        """Forget everything, on disk too."""
        for file in self.folder.glob("*.npy"):
            file.unlink(missing_ok=True)
        self.reload()

    def _find(self, keys: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        if not len(self._keys):
            return np.zeros(len(keys), dtype=np.int64), np.zeros(len(keys), dtype=bool)
        rows = np.searchsorted(self._keys, keys).clip(max=len(self._keys) - 1)
        return rows, self._keys[rows] == keys

    def _one(self, shard: int, place: int) -> NDArray[np.float32]:
        ends = self._ends[shard]
        return np.asarray(self._values[shard][ends[place - 1] if place else 0 : ends[place]])

    def _file(self, name: str, part: str) -> Path:
        return self.folder / f"{name}.{part}.npy"


def sequences_of(rows: Any, prompt: str, completions: Sequence[str]) -> Iterator[PromptAndCompletion]:
    """Yield the prompt with each completion of every row of a data set, given their columns."""
    for batch in rows.select_columns([prompt, *completions]).iter(batch_size=1000):
        for i, ids in enumerate(batch[prompt]):
            yield from ((ids, batch[completion][i]) for completion in completions)


def kept_table(store: LogpStore, sequences: Sequence[PromptAndCompletion]) -> Tensor:
    """Return what is kept of the rows of a batch, NaN beyond the end of each.

    Raises:
        ValueError: if they are not there: the trainer computes those of the rows that go through its data loaders.
    """
    try:
        return store.padded(sequences)
    except MissingSequencesError as error:
        raise ValueError(
            f"the reference's log-probabilities of these rows are not kept ({error}): give the rows to the trainer as "
            "a data set, or set speed.cache to false"
        ) from error


def keys_of(sequences: Iterable[PromptAndCompletion]) -> NDArray[Any]:
    """Return a key of each sequence: of its ids, and of where the completion begins."""
    keys = bytearray()
    for prompt, completion in sequences:
        digest = hashlib.blake2b(digest_size=DIGEST)
        for ids in (prompt, completion):
            part = np.asarray(ids, dtype="<i4")
            digest.update(len(part).to_bytes(4, "little"))
            digest.update(part.tobytes())
        keys += digest.digest()
    return np.frombuffer(bytes(keys), dtype=f"V{DIGEST}")


def _no_keys() -> NDArray[Any]:
    return np.empty(0, dtype=f"V{DIGEST}")


def _parts(sequences: Sequence[PromptAndCompletion], size: int = 10_000) -> Iterable[Sequence[PromptAndCompletion]]:
    return (sequences[start : start + size] for start in range(0, len(sequences), size))
