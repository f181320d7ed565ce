"""What became of the log-probabilities, in words: the first thing asked of a run."""

from collections.abc import Mapping
from dataclasses import dataclass

from align.report.series import Rows, series

SIDES = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Changes:
    """How far the log-probabilities moved, in nats a completion.

    Attributes:
        where: ``held out`` or ``training``, the pairs it was seen on.
        of: change from the first logged step to the last, of ``chosen`` and ``rejected``; a side that was not logged is
            absent.
    """

    where: str
    of: Mapping[str, float]


def changes(rows: Rows) -> Changes:
    """Return how far chosen and rejected moved, rounded to a tenth of a nat.

    Held-out pairs are the same at every evaluation and speak first, where there are two evaluations; training steps
    see other pairs each time.
    """
    held_out = len(series(rows, "eval_logps/chosen")) > 1
    prefix, where = ("eval_", "held out") if held_out else ("", "training")
    lines = {side: series(rows, f"{prefix}logps/{side}") for side in SIDES}
    moved = {side: float(line.values[-1] - line.values[0]) for side, line in lines.items() if len(line)}
    return Changes(where, {side: round(value, 1) + 0.0 for side, value in moved.items()})


def change_in_words(rows: Rows) -> str:
    """Return what became of the log-probabilities, as ``held out: chosen -3.1 nats, rejected -20.4 (both fell)``.

    Which pairs speak, and from when to when: see :func:`changes`.
    """
    found = changes(rows)
    where, moved = found.where, found.of
    if len(moved) < 2:
        return "".join(f"{where}: {side} {change:+.1f} nats" for side, change in moved.items())
    return f"{where}: chosen {moved['chosen']:+.1f} nats, rejected {moved['rejected']:+.1f}{_verdict(**moved)}"


def meaning(rows: Rows) -> str:
    """Return what the change means for someone who asks why the chosen log-probability fell; empty where unknown."""
    moved = changes(rows).of
    if len(moved) < 2:
        return ""
    chosen, rejected = moved["chosen"], moved["rejected"]
    gap = round(chosen - rejected, 1) + 0.0
    moved_apart = f"the gap between them {'grew' if gap > 0 else 'shrank'} by {abs(gap):.1f} nats"
    if gap == 0:
        moved_apart = "the gap between them stayed"
    if chosen < 0 and rejected < 0:
        return f"Both answers became less likely; {moved_apart}. {_why_both_fell(gap)}"
    if chosen < 0:
        return f"The chosen answers became less likely and the rejected did not: {moved_apart}, against the aim."
    if chosen > 0 > rejected:
        return f"The chosen answers became more likely and the rejected less: {moved_apart}."
    return f"The chosen answers did not become less likely; {moved_apart}."


def _why_both_fell(gap: float) -> str:
    if gap <= 0:
        return "The chosen fell at least as fast as the rejected: training did not separate them."
    return (
        "The chosen fell more slowly than the rejected, and a loss of the difference, such as DPO's, asks for no more "
        "than that. The probability that both lost went to other answers."
    )


def _verdict(chosen: float, rejected: float) -> str:
    if chosen < 0 and rejected < 0:
        return " (both fell)"
    if chosen > 0 and rejected > 0:
        return " (both rose)"
    return " (chosen rose, rejected fell)" if chosen > 0 > rejected else ""
