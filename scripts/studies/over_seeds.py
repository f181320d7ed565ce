"""What studies of several arms and seeds share: running what is missing, intervals, verdicts, tables of a page."""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

T_95 = {2: 12.71, 3: 4.30, 4: 3.18, 5: 2.78}
"""Two-sided 95 % quantiles of Student's t, by the number of seeds."""


class StudyRun(Protocol):
    """A run of a study: what it is called, and where its result is."""

    @property
    def name(self) -> str:
        """Of its files."""

    @property
    def file(self) -> Path:
        """Where its result is."""

    @property
    def digest(self) -> str:
        """Of what decides about it."""


R = TypeVar("R", bound=StudyRun)


def say(text: str) -> None:
    """Print a line for people, beside what programs read."""
    print(text, file=sys.stderr, flush=True)


def run_missing(
    runs: Sequence[R], run: Callable[[R], Mapping[str, Any]], told: Callable[[Mapping[str, Any]], str]
) -> dict[str, str]:
    """Run those without a result, saying how long the rest takes; return what failed, and why.

    Args:
        runs: all that are asked for.
        run: makes one and returns what is written as its result.
        told: a few words on a result.
    """
    missing, failures = [one for one in runs if not one.file.is_file()], {}
    say(f"{len(runs) - len(missing)} of {len(runs)} results are there")
    started = time.perf_counter()
    for done, one in enumerate(missing, 1):
        try:
            found = run(one)
            one.file.parent.mkdir(parents=True, exist_ok=True)
            one.file.write_text(json.dumps(found) + "\n", encoding="utf-8")
            said = told(found)
        except ValueError as error:
            failures[one.name] = said = str(error)
        left = (time.perf_counter() - started) / done * (len(missing) - done)
        say(f"[{done}/{len(missing)}] {one.name}: {said}; about {left / 60:.0f} min left")
    return failures


def results_of(runs: Sequence[R], can_tell: Callable[[R], bool] = lambda run: True) -> list[dict[str, Any]]:
    """Return the results that are there, and say which are of another recipe than the present one.

    Args:
        runs: all that are asked for.
        can_tell: whether what decides about a run is at hand here.
    """
    there = [run for run in runs if run.file.is_file()]
    found = [json.loads(run.file.read_text(encoding="utf-8")) for run in there]
    for run, one in zip(there, found, strict=True):
        if can_tell(run) and one["digest"] != run.digest:
            say(f"{run.name}: of another recipe; remove {run.file} to run it again")
    return found


def matching(found: Sequence[Mapping[str, Any]], **wanted: Any) -> list[Mapping[str, Any]]:
    """Return the results that have the wanted values."""
    return [one for one in found if all(one[key] == value for key, value in wanted.items())]


def curves(rows: Sequence[Mapping[str, Any]], keys: Sequence[str]) -> dict[str, list[list[float]]]:
    """Return ``[step, value]`` of each key of a run's metrics, by the last part of its name."""
    named = {key: key.split("/")[-1] for key in keys}
    return {
        name: [[row["step"], round(row[key], 6)] for row in rows if row.get(key) is not None]
        for key, name in named.items()
    }


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean over seeds and its 95 % interval by Student's t, a wide one for two or three seeds."""
    mean, n = float(np.mean(values)), len(values)
    if n < 2:
        return mean, mean, mean
    half = T_95.get(n, 2.0) * float(np.std(values, ddof=1)) / n**0.5
    return mean, mean - half, mean + half


def shown(values: Sequence[float], form: str = "+.2f") -> str:
    """Return the mean over seeds, with its interval where there are several."""
    mean, low, high = interval(values)
    return f"{mean:{form}} [{low:{form}}, {high:{form}}]" if len(values) > 1 else f"{mean:{form}}"


def verdict(values: Sequence[float], *, above: float | None = None, below: float | None = None) -> str:
    """Return whether a mean over seeds is on one side of a level, by its interval: in one of four words.

    Examples:
        >>> verdict([1.0, 1.1, 0.9], above=0), verdict([1.0, 1.1, 0.9], below=0), verdict([1.0, -1.0], above=0)
        ('holds', 'does not hold', 'inconclusive')
        >>> verdict([1.0], above=0)
        'one seed only'
    """
    if len(values) < 2:
        return "one seed only"
    _, low, high = interval(values)
    right = low > above if above is not None else high < below  # type: ignore[operator]
    wrong = high < above if above is not None else low > below  # type: ignore[operator]
    return "holds" if right else "does not hold" if wrong else "inconclusive"


def with_mean(word: str, values: Sequence[float]) -> str:
    """Return a verdict with the mean beside it where it decides nothing."""
    return word if "hold" in word else f"{word} ({np.mean(values):+.2f})"


def line(parts: Sequence[str]) -> str:
    """Return a row of a Markdown table."""
    return f"| {' | '.join(parts)} |"


def table_head(title: str, columns: Sequence[str]) -> list[str]:
    """Return the first lines of a section with a Markdown table."""
    return [f"### {title}", "", line(columns), line(["---"] * len(columns))]


def write_between(page: Path, script: str, title: str, text: str) -> None:
    """Write between a page's marks what a script makes, and leave what stands around them."""
    start, end = f"<!-- made by {script} -->", "<!-- to here -->"
    whole = page.read_text(encoding="utf-8") if page.is_file() else f"# {title}\n\n{start}\n{end}\n"
    before, _, rest = whole.partition(start)
    _, _, after = rest.partition(end)
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(f"{before}{start}\n\n{text}\n\n{end}{after}", encoding="utf-8")
