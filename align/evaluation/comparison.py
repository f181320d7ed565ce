"""Samples of the base and of the aligned model side by side: what alignment gained, and what it cost.

The gain is reward on prompts the training did not see; the cost is the distance from the base model, KL, and whatever
variety, length or sense was lost on the way. A reward without the rest is no result.
"""

import html
import json
import re
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from functools import partial
from itertools import zip_longest
from typing import Any

import numpy as np

from align.evaluation.accuracy import wins
from align.evaluation.intervals import bootstrap_difference, bootstrap_mean, finite_column
from align.evaluation.text import distinct_n, repetition
from align.recipe.schema import EvaluationSettings

_CUT = " [...]"
_MARKDOWN = re.compile(r"([\\`*_\[\]|#~$])")


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """Completions of one model, a row each; several rows may share a prompt.

    Attributes:
        prompts: prompt of each row.
        completions: what the model wrote.
        scores: the scorer's reward of each completion.
        lengths: tokens of each completion.
        ended: whether the model ended the completion itself, rather than reaching the limit.
    """

    prompts: list[str]
    completions: list[str]
    scores: list[float]
    lengths: list[int]
    ended: list[bool]

    def __post_init__(self) -> None:
        sizes = {field.name: len(getattr(self, field.name)) for field in fields(self)}
        if len(set(sizes.values())) > 1:
            raise ValueError(f"every sample needs all of its columns, got {sizes}")
        if not self.prompts:
            raise ValueError("there are no samples")

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.prompts)


def compare_samples(
    base: Samples, aligned: Samples, log_ratios: Sequence[float], settings: EvaluationSettings
) -> dict[str, Any]:
    """Return what changed from the base to the aligned model, ready for JSON.

    Rows are paired: row i of both is the same prompt and the same sample index. Intervals resample prompts, all rows
    of a prompt together.

    Args:
        base: samples of the base model.
        aligned: samples of the aligned model, on the same prompts in the same order.
        log_ratios: of each aligned sample, its summed log-probability under the aligned model minus that under the
            base model, in nats.
        settings: level and resamples of the intervals.

    Returns:
        ``prompts`` and ``samples`` (how many), ``confidence``; ``reward`` of ``base``, ``aligned`` and their
        ``difference``, each ``value``, ``low``, ``high``; ``win_rate`` of aligned over base, ties one half, with the
        share of ``ties``; ``kl``, see below, with ``per_token``; ``distinct_1``, ``distinct_2``, ``repetition`` (of
        three words), ``length_tokens`` (mean) and ``ended`` (share) of ``base`` and ``aligned``; ``scores`` of every
        sample.

        ``kl`` is the Monte-Carlo estimate of KL(aligned || base) of completions up to the token limit, in nats a
        completion: the mean of ``log_ratios``. It is unbiased where the aligned samples were
        sampled at temperature 1 with the whole nucleus; it can come out below 0 by chance. ``per_token`` is the same
        sum divided by all tokens of the aligned samples.

    Raises:
        ValueError: the prompts differ, or scores or log-probabilities are not finite.
    """
    _check_paired(base, aligned)
    level = {"confidence": settings.confidence, "resamples": settings.resamples}
    return {
        "prompts": len(set(base.prompts)),
        "samples": len(base),
        "confidence": settings.confidence,
        "reward": _reward(base, aligned, level),
        "win_rate": _win_rate(base, aligned, level),
        "kl": _kl(aligned, log_ratios, level),
        "distinct_1": _both(partial(_distinct, n=1), base, aligned),
        "distinct_2": _both(partial(_distinct, n=2), base, aligned),
        "repetition": _both(lambda samples: repetition(samples.completions), base, aligned),
        "length_tokens": _both(lambda samples: float(np.mean(samples.lengths)), base, aligned),
        "ended": _both(lambda samples: float(np.mean(samples.ended)), base, aligned),
        "scores": {"base": list(map(float, base.scores)), "aligned": list(map(float, aligned.scores))},
    }


def side_by_side(base: Samples, aligned: Samples, rows: int = 8, width: int = 120) -> str:
    """Return a table of prompts and both completions with their scores, for a terminal.

    Rows are evenly spaced over the list, first and last among them, whatever their scores.

    Args:
        base: samples of the base model.
        aligned: samples of the aligned model, on the same prompts in the same order.
        rows: most rows to show, at least 1.
        width: columns of the terminal, at least 40.

    Raises:
        ValueError: the prompts differ, or ``rows`` or ``width`` is too small.
    """
    if width < 40:
        raise ValueError(f"width must be at least 40 columns, got {width}")
    shown = _spaced(base, aligned, rows)
    prompt_width = (width - 6) // 4
    answer_width = (width - 6 - prompt_width) // 2
    widths = (prompt_width, answer_width, answer_width)
    rule = "-+-".join("-" * column for column in widths)
    lines = [
        textwrap.fill(_caption(len(shown), len(base)), width),
        "",
        *_wrapped(("prompt", "base", "aligned"), widths),
    ]
    for index in shown:
        cells = (_plain(base.prompts[index]), _answer(base, index), _answer(aligned, index))
        lines += [rule, *_wrapped(cells, widths)]
    return "\n".join(lines)


def samples_markdown(base: Samples, aligned: Samples, rows: int = 8) -> str:
    """Return the rows of :func:`side_by_side` as a Markdown table; what models wrote is escaped.

    Raises:
        ValueError: the prompts differ, or ``rows`` is below 1.
    """
    shown = _spaced(base, aligned, rows)
    lines = [_caption(len(shown), len(base)), "", "| prompt | base | aligned |", "| --- | --- | --- |"]
    for index in shown:
        cells = (_plain(base.prompts[index]), _answer(base, index), _answer(aligned, index))
        lines.append("| " + " | ".join(_escaped(cell) for cell in cells) + " |")
    return "\n".join(lines)


def samples_jsonl(base: Samples, aligned: Samples) -> str:
    """Return every row as a JSON object a line, for programs; :func:`samples_markdown` shows some of them to people.

    Keys: ``prompt``, and of ``base`` and of ``aligned`` the completion under that name, ``_score`` (the scorer's
    reward), ``_tokens`` (length) and ``_ended`` (whether the model ended it, rather than the limit).

    Raises:
        ValueError: the prompts differ.
    """
    _check_paired(base, aligned)
    rows = [{**_row("base", base, index), **_row("aligned", aligned, index)} for index in range(len(base))]
    lines = [{"prompt": prompt, **row} for prompt, row in zip(base.prompts, rows, strict=True)]
    return "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _check_paired(base: Samples, aligned: Samples) -> None:
    if len(base) != len(aligned):
        raise ValueError(f"both models need as many samples, got {len(base)} and {len(aligned)}")
    for row, (ours, theirs) in enumerate(zip(base.prompts, aligned.prompts, strict=True)):
        if ours != theirs:
            raise ValueError(f"row {row} has two prompts: {ours!r} and {theirs!r}")


def _reward(base: Samples, aligned: Samples, level: dict[str, Any]) -> dict[str, dict[str, float]]:
    return {
        "base": bootstrap_mean(finite_column(base.scores, "base scores"), groups=base.prompts, **level).as_dict(),
        "aligned": bootstrap_mean(
            finite_column(aligned.scores, "aligned scores"), groups=base.prompts, **level
        ).as_dict(),
        "difference": bootstrap_difference(aligned.scores, base.scores, groups=base.prompts, **level).as_dict(),
    }


def _win_rate(base: Samples, aligned: Samples, level: dict[str, Any]) -> dict[str, float]:
    won = wins(np.array(aligned.scores, dtype=np.float64), np.array(base.scores, dtype=np.float64))
    ties = float(np.mean(won == 0.5))
    return {**bootstrap_mean(won, groups=base.prompts, **level).as_dict(), "ties": ties}


def _kl(aligned: Samples, log_ratios: Sequence[float], level: dict[str, Any]) -> dict[str, float]:
    ratios = finite_column(log_ratios, "log-ratios of the aligned samples")
    per_token = float(ratios.sum()) / max(sum(aligned.lengths), 1)
    return {**bootstrap_mean(ratios, groups=aligned.prompts, **level).as_dict(), "per_token": per_token}


def _both(measure: Callable[[Samples], float], base: Samples, aligned: Samples) -> dict[str, float]:
    return {"base": measure(base), "aligned": measure(aligned)}


def _distinct(samples: Samples, *, n: int) -> float:
    return distinct_n(samples.completions, n)


def _spaced(base: Samples, aligned: Samples, rows: int) -> list[int]:
    """Return at most ``rows`` indices, evenly spaced from the first row to the last."""
    _check_paired(base, aligned)
    if rows < 1:
        raise ValueError(f"rows must be at least 1, got {rows}")
    count = min(rows, len(base))
    return [place * (len(base) - 1) // max(count - 1, 1) for place in range(count)]


def _row(name: str, samples: Samples, index: int) -> dict[str, Any]:
    return {
        name: samples.completions[index],
        f"{name}_score": float(samples.scores[index]),
        f"{name}_tokens": int(samples.lengths[index]),
        f"{name}_ended": bool(samples.ended[index]),
    }


def _caption(shown: int, total: int) -> str:
    if shown == total:
        return f"All {total} samples, with their scores;{_CUT} where the token limit was reached."
    return (
        f"{shown} of {total} samples, evenly spaced over the list and not picked by score;"
        f"{_CUT} where the token limit was reached."
    )


def _answer(samples: Samples, index: int) -> str:
    text = _plain(samples.completions[index]) or "(nothing)"
    return f"{samples.scores[index]:+.2f} {text}" + ("" if samples.ended[index] else _CUT)


def _plain(text: str) -> str:
    """Return the text on one line, without control characters that a terminal would obey."""
    return " ".join("".join(sign if sign.isprintable() else " " for sign in text).split())


def _wrapped(cells: Sequence[str], widths: Sequence[int]) -> list[str]:
    """Return the lines of one table row."""
    columns = [textwrap.wrap(cell, width) for cell, width in zip(cells, widths, strict=True)]
    return [
        " | ".join(part.ljust(width) for part, width in zip(parts, widths, strict=True)).rstrip()
        for parts in zip_longest(*columns, fillvalue="")
    ]


def _escaped(cell: str) -> str:
    return _MARKDOWN.sub(r"\\\1", html.escape(cell, quote=False))
