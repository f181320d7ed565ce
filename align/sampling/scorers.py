"""Rewards of completions: a sentiment lexicon, or a user's function."""

import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

from align.objectives.custom import load_python_file

Scorer = Callable[[Sequence[str], Sequence[str]], list[float]]
"""``scorer(prompts, completions) -> one number for each, larger is better``."""


def load_scorer(name: str) -> Scorer:
    """Return the scorer a recipe names: ``vader``, or ``FILE.py:FUNCTION``.

    The scores of a user's function are checked: one finite number for each completion.

    Raises:
        ValueError: if there is no such scorer, or its package is not installed.
    """
    if name == "vader":
        _vader()
        return vader
    file, colon, function = name.rpartition(":")
    if not colon or not file.endswith(".py"):
        raise ValueError(f"no scorer {name!r}; known: vader, or FILE.py:FUNCTION")
    module = load_python_file(file)
    if not callable(getattr(module, function, None)):
        raise ValueError(f"{file} defines no function {function!r} to score with")
    return _checked(getattr(module, function), name)


def vader(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
    """Return the compound sentiment of each completion, from -1 to 1 (Hutto and Gilbert, 2014)."""
    analyser = _vader()
    return [float(analyser.polarity_scores(text)["compound"]) for text in completions]


@cache
def _vader() -> Any:
    try:
        from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer
    except ImportError as error:
        raise ValueError("scorer 'vader' needs a package; install it with: pip install vaderSentiment") from error
    return SentimentIntensityAnalyzer()


def _checked(function: Callable[..., Any], name: str) -> Scorer:
    def score(prompts: Sequence[str], completions: Sequence[str]) -> list[float]:
        try:
            scores = [float(value) for value in function(prompts, completions)]
        except Exception as error:
            raise ValueError(f"scorer {name} failed: {type(error).__name__}: {error}") from error
        if len(scores) != len(completions):
            raise ValueError(f"scorer {name} returned {len(scores)} scores for {len(completions)} completions")
        if bad := [i for i, value in enumerate(scores) if not math.isfinite(value)]:
            raise ValueError(f"scorer {name} returned {scores[bad[0]]} for completion {completions[bad[0]]!r}")
        return scores

    return score
