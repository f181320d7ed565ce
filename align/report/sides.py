"""What the two sides of a run's rows are called: chosen and rejected, or desirable and undesirable.

The log names metrics of desirable completions ``chosen`` and those of undesirable ones ``rejected``.
"""

from dataclasses import dataclass

from align.report.series import Rows, has

ONLY_UNPAIRED = ("eval_auc", "eval_desirable", "eval_undesirable", "kl", "eval_kl")
ONLY_PAIRS = ("rewards/margins", "eval_rewards/margins", "eval_accuracy")
REWARDS = {side: (f"rewards/{side}", f"eval_rewards/{side}") for side in ("chosen", "rejected")}


@dataclass(frozen=True, slots=True, kw_only=True)
class Sides:
    """Words for what a run, or several together, trained on.

    Attributes:
        chosen: what the log calls chosen.
        rejected: what the log calls rejected.
        rows: what was trained on.
    """

    chosen: str
    rejected: str
    rows: str

    def __getitem__(self, side: str) -> str:
        """Return the word for a side as the log names it."""
        return {"chosen": self.chosen, "rejected": self.rejected}[side]


PAIRS = Sides(chosen="chosen", rejected="rejected", rows="pairs")
COMPLETIONS = Sides(chosen="desirable", rejected="undesirable", rows="completions")
MIXED = Sides(chosen="chosen or desirable", rejected="rejected or undesirable", rows="rows")


def is_unpaired(rows: Rows) -> bool:
    """Return whether a log is of training on single completions.

    It has what only such a run logs, or rewards of both sides and none of what compares them within a pair.
    """
    if has(rows, ONLY_UNPAIRED):
        return True
    return not has(rows, ONLY_PAIRS) and all(has(rows, keys) for keys in REWARDS.values())


def sides_of(*logs: Rows) -> Sides:
    """Return the words for a run, or for several together."""
    kinds = {is_unpaired(rows) for rows in logs}
    return MIXED if len(kinds) > 1 else COMPLETIONS if kinds == {True} else PAIRS
