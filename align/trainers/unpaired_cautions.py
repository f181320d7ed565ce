"""What deserves a warning before training on single completions: their labels, and batches of one row."""

from collections.abc import Iterator

from transformers import TrainingArguments

from align.data.row_columns import RowColumns
from align.objectives.base import Objective
from align.objectives.kto import KTO
from align.objectives.mixture import Mixture, Smoothed
from align.trainers.forecast import Schedule

BALANCED = 1.0, 4 / 3
"""Range in which arXiv:2402.01306 wants desirable_weight * desirable rows / (undesirable_weight * undesirable rows)."""
LABEL_OF = {"chosen": "desirable", "rejected": "undesirable"}


def label_cautions(objective: Objective, train: RowColumns) -> list[str]:
    """Return what is odd about how many training completions are desirable.

    Args:
        objective: what is trained.
        train: columns of single completions.
    """
    assert train.desirable is not None
    desirable = int(train.desirable.sum())
    counts = {"desirable": desirable, "undesirable": len(train) - desirable}
    found = [*_unread(objective, counts), *_one_label(objective, counts)]
    if all(counts.values()):
        found += [line for part in parts_of(objective) if isinstance(part, KTO) for line in _unbalanced(part, **counts)]
    return found


def batch_cautions(
    objective: Objective, rows: int, held_out: int, plan: Schedule, arguments: TrainingArguments, processes: int
) -> list[str]:
    """Return which steps and batches hold one row, where the objective pairs each prompt with another row's completion.

    Args:
        objective: what is trained.
        rows: to train on.
        held_out: rows to evaluate on.
        plan: what the run does.
        arguments: of its trainer.
        processes: that train together.
    """
    if not objective.needs_mismatched:
        return []
    found = []
    lone = rows % plan.batch == 1 and plan.micro_steps >= plan.batches
    if lone and not arguments.dataloader_drop_last:
        found.append(
            "the last step of an epoch holds one row, and the objective pairs each prompt with the completion of "
            "another row of its step: one of the first training rows stands in; set trainer.dataloader_drop_last=true"
        )
    if held_out and arguments.eval_batch_size * processes == 1:
        found.append(
            "trainer.per_device_eval_batch_size=1: the objective pairs each held-out prompt with the completion of "
            "another row of its batch, and a training row would stand in for all: set it to 4 or more (both sides of a "
            "pair that was taken apart have one prompt)"
        )
    return found


def parts_of(objective: Objective) -> Iterator[Objective]:
    """Yield what an objective is made of: itself, or the parts of a mixture."""
    if isinstance(objective, Mixture):
        for part in objective.parts:
            yield from parts_of(part.objective)
    elif isinstance(objective, Smoothed):
        yield from parts_of(objective.objective)
    else:
        yield objective


def _unread(objective: Objective, counts: dict[str, int]) -> Iterator[str]:
    for side, label in LABEL_OF.items():
        if side not in objective.reads and counts[label]:
            yield (
                f"{counts[label]:,} of {sum(counts.values()):,} training completions are {label}, which the objective "
                "does not read: they are computed and change nothing; leave them out"
            )


def _one_label(objective: Objective, counts: dict[str, int]) -> Iterator[str]:
    for side, label in LABEL_OF.items():
        if side in objective.reads and not counts[label]:
            yield f"no training completion is {label}: the objective reads those too"


def _unbalanced(objective: KTO, *, desirable: int, undesirable: int) -> Iterator[str]:
    good, bad = objective.desirable_weight, objective.undesirable_weight
    ratio = good * desirable / (bad * undesirable)
    low, high = BALANCED
    if low <= ratio <= high:
        return
    name, first, last = (
        ("undesirable_weight", bad * ratio / high, bad * ratio / low)
        if ratio > high
        else ("desirable_weight", good * low / ratio, good * high / ratio)
    )
    yield (
        f"desirable_weight * desirable rows / (undesirable_weight * undesirable rows) = {good:g} * {desirable:,} / "
        f"({bad:g} * {undesirable:,}) = {ratio:.3g}: the KTO paper (arXiv:2402.01306) recommends 1 to 4/3, which is "
        f"{name} from {first:.3g} to {last:.3g}"
    )
