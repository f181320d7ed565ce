"""What runs over seeds say of a claim: effects with intervals, paired by seed, and one of three words."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from align.wings.claim import Claim, Relation
from align.wings.extras import needed

Word = Literal["holds", "does not hold", "inconclusive"]
CONFIDENCE = 0.95
UNEVEN = "its baselines were not tuned as long as the method"


@dataclass(frozen=True, slots=True, kw_only=True)
class Effect:
    """One relation, measured.

    Attributes:
        text: the relation in words.
        value: mean over seeds of what the relation is about.
        low: of its 95 % interval by Student's t over seeds.
        high: the other end.
        level: what the interval is held against.
        word: whether it lies above, below, or across.
        asserted: whether the verdict needs it.
    """

    text: str
    value: float
    low: float
    high: float
    level: float
    word: Word
    asserted: bool


def effect_of(relation: Relation, claim: Claim, values: Mapping[str, Mapping[str, Sequence[float]]]) -> Effect:
    """Return a relation's effect.

    Args:
        relation: of the claim.
        claim: gives the first arm.
        values: arm, figure, then a value a seed, in the same order of seeds for every arm.

    Raises:
        ValueError: no run of an arm has the figure.
    """
    arm = relation.arm or next(iter(claim.arms))
    own = _column(values, arm, relation.figure)
    other = relation.over or relation.under
    if other is None:
        level = relation.at_least if relation.at_least is not None else relation.at_most
        assert level is not None
        sign = 1.0 if relation.at_least is not None else -1.0
        bound = "at least" if sign > 0 else "at most"
        value, low, high = interval(own)
        word = _word(sign * (low if sign > 0 else high), sign * (high if sign > 0 else low), sign * level)
        text = f"{relation.figure} of {arm}: {bound} {level:g}"
        return Effect(text=text, value=value, low=low, high=high, level=level, word=word, asserted=relation.asserted)
    theirs = _column(values, other, relation.figure)
    sign = 1.0 if relation.over else -1.0
    if relation.relative and not all(theirs):
        raise ValueError(f"{relation.figure}: a share of {other!r}, which is 0 for some seed; leave relative out")
    apart = [sign * (a - b) / (abs(b) if relation.relative else 1.0) for a, b in zip(own, theirs, strict=True)]
    value, low, high = interval(apart)
    by = f"{relation.by:.0%}" if relation.relative else f"{relation.by:g}"
    text = f"{relation.figure}: {arm} {'over' if relation.over else 'under'} {other} by {by}"
    # Two arms that do the same are not apart by nothing: an interval must lie beyond the level, not on it.
    word = _word(low, high, relation.by, beyond=True)
    return Effect(text=text, value=value, low=low, high=high, level=relation.by, word=word, asserted=relation.asserted)


def verdict(claim: Claim, effects: Sequence[Effect]) -> tuple[Word, str]:
    """Return the claim's verdict, and why where it is not that it holds.

    It holds where every asserted relation does, and does not where one of them lies on the wrong side. A claim whose
    arms were not tuned alike is inconclusive whatever came out.
    """
    asserted = [effect for effect in effects if effect.asserted]
    failed = [effect.text for effect in asserted if effect.word == "does not hold"]
    open_ones = [effect.text for effect in asserted if effect.word == "inconclusive"]
    if not claim.tuned_alike:
        return "inconclusive", UNEVEN
    if failed:
        return "does not hold", "; ".join(failed)
    if open_ones:
        return "inconclusive", "the interval reaches across: " + "; ".join(open_ones)
    return "holds", ""


def interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Return the mean and the ends of its 95 % interval by Student's t; of one value, no interval but itself."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, mean, mean
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1) / n)
    half = float(needed("scipy.stats").t.ppf(0.5 + CONFIDENCE / 2, n - 1)) * spread
    return mean, mean - half, mean + half


def _word(low: float, high: float, level: float, *, beyond: bool = False) -> Word:
    if low > level or (low == level and not beyond):
        return "holds"
    return "does not hold" if high < level else "inconclusive"


def _column(values: Mapping[str, Mapping[str, Any]], arm: str, figure: str) -> Sequence[float]:
    found: Sequence[float] | None = values[arm].get(figure)
    if found is None:
        raise ValueError(
            f"claim: runs of {arm!r} have no figure {figure!r}; they have {', '.join(sorted(values[arm]))}"
        )
    return found
