"""Metrics of a run, read back: ``metrics.jsonl``, one JSON object a line.

A line has ``step`` and ``epoch`` and either what training logs (``loss``, ``logps/chosen``, ``grad_norm``, ...) or what
an evaluation does, by the same names after ``eval_``. A line is appended when its numbers are known, so a run that
was killed may leave half of its last one.
"""

import json
import math
from pathlib import Path
from typing import Any

METRICS_FILE = "metrics.jsonl"


def read_metrics(run_dir: str | Path) -> list[dict[str, Any]]:
    """Return the lines of the run's metrics file, in the order in which they were written.

    A last line that breaks off before its end, as a killed run leaves it, is passed over.

    Args:
        run_dir: folder of the run.

    Raises:
        ValueError: there is no such folder, no metrics file in it, nothing in the file, or a line that is no JSON
            object with a ``step`` (the message gives its number).
    """
    path = _existing_file(Path(run_dir))
    rows = logged_rows(path.parent)
    if not rows:
        raise ValueError(f"{path} holds no metrics: the run logged nothing yet")
    return rows


def logged_rows(run_dir: Path) -> list[dict[str, Any]]:
    """Return as :func:`read_metrics`, but nothing where nothing was logged yet.

    Raises:
        ValueError: a line is no JSON object with a ``step``.
    """
    path = run_dir / METRICS_FILE
    if not path.is_file():
        return []
    *lines, last = path.read_bytes().split(b"\n")
    if not _is_torn(last):
        lines.append(last)
    return [_row(line, number, path) for number, line in enumerate(lines, start=1) if line.strip()]


def _existing_file(run_dir: Path) -> Path:
    if not run_dir.is_dir():
        raise ValueError(f"there is no run folder {run_dir}")
    path = run_dir / METRICS_FILE
    if not path.is_file():
        raise ValueError(f"{run_dir} has no {METRICS_FILE}: no training has logged there")
    return path


def _is_torn(line: bytes) -> bool:
    """Return whether a line without its newline breaks off; an object cut short is never valid JSON."""
    try:
        json.loads(line)
    except ValueError:  # malformed JSON and malformed UTF-8 alike
        return True
    return False


def _row(line: bytes, number: int, path: Path) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise ValueError(f"line {number} of {path} is no JSON: {error}") from error
    if not isinstance(row, dict) or not _is_step(row.get("step")):
        raise ValueError(f"line {number} of {path} is no object with a step: {line[:60]!r}")
    return row


def _is_step(step: object) -> bool:
    return isinstance(step, int | float) and not isinstance(step, bool) and math.isfinite(step)
