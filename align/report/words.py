"""What became of the log-probabilities, in words: the first thing asked of a run."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from align.report.series import Rows, series
from align.report.sides import PAIRS, Sides, sides_of

SIDES = ("chosen", "rejected")


@dataclass(frozen=True, slots=True)
class Changes:
    """How far the log-probabilities moved, in nats a completion.

    Attributes:
        where: ``held out`` or ``training``, the rows it was seen on.
        of: change from the first logged step to the last, of ``chosen`` and ``rejected``, which are desirable and
            undesirable completions where those were trained on; a side that was not logged is absent.
        names: words for both.
    """

    where: str
    of: Mapping[str, float]
    names: Sides


def changes(rows: Rows) -> Changes:
    """Return how far chosen and rejected moved, rounded to a tenth of a nat.

    Held-out rows are the same at every evaluation and speak first, where there are two evaluations; training steps
    see other rows each time.
    """
    held_out = any(len(series(rows, f"eval_logps/{side}")) > 1 for side in SIDES)
    prefix, where = ("eval_", "held out") if held_out else ("", "training")
    lines = {side: series(rows, f"{prefix}logps/{side}") for side in SIDES}
    moved = {side: float(line.values[-1] - line.values[0]) for side, line in lines.items() if len(line)}
    return Changes(where, {side: round(value, 1) + 0.0 for side, value in moved.items()}, sides_of(rows))


def change_in_words(rows: Rows) -> str:
    """Return what became of the log-probabilities, as ``held out: chosen -3.1 nats, rejected -20.4 (both fell)``.

    Which rows speak, and from when to when: see :func:`changes`.
    """
    found = changes(rows)
    where, moved, names = found.where, found.of, found.names
    if len(moved) < 2:
        return "".join(f"{where}: {names[side]} {change:+.1f} nats" for side, change in moved.items())
    told = f"{names.chosen} {moved['chosen']:+.1f} nats, {names.rejected} {moved['rejected']:+.1f}"
    return f"{where}: {told}{_verdict(names, **moved)}"


def meaning(rows: Rows) -> str:
    """Return what the change means for someone who asks why the chosen log-probability fell; empty where unknown."""
    found = changes(rows)
    moved, names = found.of, found.names
    if len(moved) < 2:
        return ""
    chosen, rejected = moved["chosen"], moved["rejected"]
    gap = round(chosen - rejected, 1) + 0.0
    moved_apart = f"the gap between them {'grew' if gap > 0 else 'shrank'} by {abs(gap):.1f} nats"
    if gap == 0:
        moved_apart = "the gap between them stayed"
    if chosen < 0 and rejected < 0:
        return f"{_both(names)} became less likely; {moved_apart}. {_why_both_fell(gap, names, trained_sides(rows))}"
    if chosen < 0:
        falling = f"The {names.chosen} answers became less likely and the {names.rejected} did not"
        return f"{falling}: {moved_apart}, against the aim."
    if chosen > 0 > rejected:
        return f"The {names.chosen} answers became more likely and the {names.rejected} less: {moved_apart}."
    return f"The {names.chosen} answers did not become less likely; {moved_apart}."


def trained_sides(rows: Rows) -> list[str]:
    """Return the sides that training computed: both, or the one that its objective reads."""
    return [side for side in SIDES if len(series(rows, f"logps/{side}"))]


def _both(names: Sides) -> str:
    return "Both answers" if names is PAIRS else "Answers of both labels"


def _why_both_fell(gap: float, names: Sides, trained: Sequence[str]) -> str:
    if len(trained) == 1:
        (other,) = (side for side in SIDES if side not in trained)
        return f"The loss sees the {names[trained[0]]} alone: what became of the {names[other]} is a side effect."
    if gap <= 0:
        return f"The {names.chosen} fell at least as fast as the {names.rejected}: training did not separate them."
    if names is not PAIRS:
        return f"The {names.chosen} fell more slowly than the {names.rejected}. What both lost went to other answers."
    return (
        "The chosen fell more slowly than the rejected, and a loss of the difference, such as DPO's, asks for no more "
        "than that. The probability that both lost went to other answers."
    )


def _verdict(names: Sides, chosen: float, rejected: float) -> str:
    if chosen < 0 and rejected < 0:
        return " (both fell)"
    if chosen > 0 and rejected > 0:
        return " (both rose)"
    return " (chosen rose, rejected fell)" if names is PAIRS and chosen > 0 > rejected else ""
