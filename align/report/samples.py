"""Samples of a run, read back, and those of several runs beside each other."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypeVar

SAMPLES_FILE = "samples.jsonl"
FIRST_SHOWN = 6
MOST_SHOWN = 200
_Any = TypeVar("_Any")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """A prompt and what both models wrote.

    Attributes:
        prompt: as the user wrote it.
        base: completion of the model before training.
        aligned: completion of the model after it.
        base_score: the scorer's reward of ``base``.
        aligned_score: the scorer's reward of ``aligned``.
        base_tokens: length of ``base``; None where the file does not say.
        aligned_tokens: length of ``aligned``.
        base_ended: whether the model ended ``base`` itself, rather than reaching the limit.
        aligned_ended: the same of ``aligned``.
    """

    prompt: str
    base: str
    aligned: str
    base_score: float
    aligned_score: float
    base_tokens: int | None = None
    aligned_tokens: int | None = None
    base_ended: bool = True
    aligned_ended: bool = True


@dataclass(frozen=True, slots=True)
class Row:
    """One prompt with the sample of every run; None where a run has none of it."""

    prompt: str
    samples: Sequence[Sample | None]

    @property
    def common_base(self) -> Sample | None:
        """A sample whose base completion and score all runs share, to be shown once; else None."""
        found = [sample for sample in self.samples if sample is not None]
        same = len({(sample.base, sample.base_score) for sample in found}) == 1
        return found[0] if same else None


def read_samples(file: Path) -> list[Sample]:
    """Return the samples of a file as :func:`align.evaluation.comparison.samples_jsonl` writes it.

    A file that is not there has none.

    Raises:
        ValueError: a line is no sample, naming file, line and reason.
    """
    if not file.is_file():
        return []
    lines = file.read_bytes().split(b"\n")
    return [_sample(line, f"line {number} of {file}") for number, line in enumerate(lines, start=1) if line.strip()]


def beside_each_other(runs: Sequence[Sequence[Sample]]) -> list[Row]:
    """Return the samples of all runs by prompt, in the order of the first run that has it.

    A prompt sampled several times makes as many rows: its first samples beside each other, then its second ones.
    """
    found: dict[tuple[str, int], list[Sample | None]] = {}
    for place, samples in enumerate(runs):
        seen: dict[str, int] = {}
        for sample in samples:
            index = seen[sample.prompt] = seen.get(sample.prompt, -1) + 1
            found.setdefault((sample.prompt, index), [None] * len(runs))[place] = sample
    return [Row(prompt, row) for (prompt, _), row in found.items()]


def spaced(items: Sequence[_Any], count: int) -> list[_Any]:
    """Return at most ``count`` items, evenly spaced from the first to the last.

    Examples:
        >>> spaced(range(11), 3)
        [0, 5, 10]
    """
    shown = min(count, len(items))
    return [items[place * (len(items) - 1) // max(shown - 1, 1)] for place in range(shown)]


def lengths(samples: Iterable[Sample]) -> dict[str, list[int]]:
    """Return the tokens of all completions of ``base`` and ``aligned``; empty where the file does not say."""
    known = [s for s in samples if s.base_tokens is not None and s.aligned_tokens is not None]
    return {"base": [s.base_tokens or 0 for s in known], "aligned": [s.aligned_tokens or 0 for s in known]}


_KINDS: dict[str, tuple[type, ...]] = {
    "_score": (int, float),
    "_tokens": (int,),
    "_ended": (bool,),
}


def _sample(line: bytes, where: str) -> Sample:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"{where} is no JSON: {error}") from error
    if not isinstance(row, dict):
        raise ValueError(f"{where} is no JSON object")
    return Sample(**{f.name: _value(row, f.name, where) for f in fields(Sample) if f.name in row or _is_needed(f.name)})


def _is_needed(name: str) -> bool:
    return not name.endswith(("_tokens", "_ended"))


def _value(row: dict[str, Any], name: str, where: str) -> Any:
    kinds = next((kinds for ending, kinds in _KINDS.items() if name.endswith(ending)), (str,))
    value = row.get(name)
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        raise ValueError(f"{where}: {name!r} must be a {' or '.join(kind.__name__ for kind in kinds)}, got {value!r}")
    return value
