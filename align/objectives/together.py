"""Objectives that couple the pairs of a batch, on the batches of several processes as if they were one.

Every process computes the losses of all pairs and keeps those of its own. What the others' losses ask of its
log-probabilities comes back through the gathering's backward.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.base import Objective
from align.objectives.logps import PairLogps, PairTokenLogps, SequenceLogps
from align.objectives.mixture import Mixture, Smoothed

Columns = list[Tensor | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Processes:
    """The rows of one batch, which lies on several processes with equally many rows each.

    Attributes:
        gather: from rows of shape (rows, numbers) to those of all processes, one after the other, with gradient.
        rank: number of this process.
        real: False for rows of this process that only fill its batch up; they couple with nothing and lose 0.
    """

    gather: Callable[[Tensor], Tensor]
    rank: int
    real: Bool[Tensor, " rows"]

    def losses(self, columns: Columns, of_all: Callable[[Columns], Tensor]) -> Float[Tensor, " rows"]:
        """Return the losses of this process's rows.

        Args:
            columns: a number for each of its rows, or None.
            of_all: from the columns of all real rows to their losses.
        """
        given = [column for column in columns if column is not None]
        kind = torch.promote_types(given[0].dtype, torch.float32)
        everyone = self.gather(torch.stack([*(c.to(kind) for c in given), self.real.to(kind)], dim=1))
        real = everyone[:, -1] > 0.5
        gathered = iter(everyone[real, :-1].unbind(1))
        found = of_all([None if column is None else next(gathered).to(column.dtype) for column in columns])
        whole = everyone.new_zeros(len(everyone), dtype=found.dtype).masked_scatter(real, found)
        return whole[self.rank * len(self.real) :][: len(self.real)]


@dataclass(frozen=True, slots=True, kw_only=True)
class Together(Objective):
    """An objective that couples pairs, on the pairs of all processes; for one batch.

    Attributes:
        objective: neither a mixture nor one with smoothed labels.
        processes: the batch.
    """

    objective: Objective
    processes: Processes

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """As the objective within."""
        return self.objective.needs_reference

    def weigh(self, tokens: PairTokenLogps) -> PairLogps:
        """As the objective within."""
        return self.objective.weigh(tokens)

    def losses(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the losses of this process's pairs."""
        mine = _columns(policy)
        theirs = [] if reference is None else _columns(reference)

        def of_all(columns: Columns) -> Tensor:
            everyones = _logps(columns[: len(mine)])
            return self.objective.losses(everyones, _logps(columns[len(mine) :]) if theirs else None)

        return self.processes.losses([*mine, *theirs], of_all)

    def anchor(self, policy: PairLogps) -> Float[Tensor, " pairs"] | None:
        """Return the part of the loss that is a likelihood of the chosen, or None."""
        if self.objective.anchor(policy) is None:
            return None

        def of_all(columns: Columns) -> Tensor:
            found = self.objective.anchor(_logps(columns))
            assert found is not None
            return found

        return self.processes.losses(_columns(policy), of_all)


def together(objective: Objective, processes: Processes) -> Objective:
    """Return the objective with every part that couples pairs on the pairs of all processes."""
    if isinstance(objective, Mixture):
        parts = (replace(part, objective=together(part.objective, processes)) for part in objective.parts)
        return replace(objective, parts=tuple(parts))
    if isinstance(objective, Smoothed):
        return replace(objective, objective=together(objective.objective, processes))
    return Together(objective=objective, processes=processes) if objective.couples_pairs else objective


NUMBERS = tuple(field.name for field in fields(PairLogps) if field.name not in ("prompt", "baseline"))
"""What is a number for each pair; of prompts there are two more."""


def _columns(pairs: PairLogps) -> Columns:
    prompt = pairs.prompt
    of_prompts: Sequence[Tensor | None] = (None, None) if prompt is None else (prompt.logps, prompt.lengths)
    return [*(getattr(pairs, name) for name in NUMBERS), *of_prompts]


def _logps(columns: Sequence[Tensor | None]) -> PairLogps:
    *numbers, logps, lengths = columns
    prompt = None if logps is None or lengths is None else SequenceLogps(logps=logps, lengths=lengths)
    given: dict[str, Any] = dict(zip(NUMBERS, numbers, strict=True))
    return PairLogps(**given, prompt=prompt)
