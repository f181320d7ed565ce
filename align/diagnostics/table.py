"""Entanglement of a whole file of pairs under a model as it is: a row of figures a pair, and what they come to."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import datasets
import numpy as np
import torch
from torch import Tensor, nn

from align.data.collate import PairCollator
from align.diagnostics.conditions import CASES, Pull
from align.diagnostics.gradients import PairGradients
from align.diagnostics.measure import brute_force, largest_error, measure, rows_of_pairs
from align.diagnostics.watch import doubled
from align.models.logprobs import output_head
from align.models.pair_logps import pair_logps
from align.objectives.base import Objective
from align.objectives.incentives import incentives
from align.objectives.logps import PairTokenLogps

COLUMNS = {
    "cosine": "cosine of the two gradients",
    "inner": "their inner product",
    "chosen_norm": "norm of the chosen one",
    "rejected_norm": "norm of the rejected one",
    "norm_ratio": "rejected over chosen norm, r*",
    "d_chosen": "weight of the chosen log-probability in the objective",
    "d_rejected": "weight of the rejected one",
    "ratio": "the first over the second, r",
    "chosen_slack": "r / r* - cosine: the chosen rises from 0 on",
    "rejected_slack": "r* / r - cosine: the rejected falls from 0 on",
    "chosen_change": "nats that the chosen gains a unit of plain descent on the pair alone",
    "rejected_change": "nats that the rejected gains",
}
"""Columns of a row of figures beside ``row``, ``where``, ``case``, log-probabilities and lengths, in order."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What is measured of each pair.

    Attributes:
        objective: whose weights d_w and d_l are used.
        reference: a model for objectives that compare; None takes the model itself, as before the first step.
        batch_size: pairs measured at a time.
        verify: pairs, the first ones, whose whole gradients are built to compare with.
    """

    objective: Objective
    reference: nn.Module | None = None
    batch_size: int = 4
    verify: int = 0


@dataclass(slots=True)
class Table:
    """Figures of pairs under one model.

    Attributes:
        rows: a mapping a pair.
        layers: contribution of each part of the model to the inner products, the mean over pairs.
        coverage: share of the trainable weights that the products run over.
        max_rel_error: largest difference from whole gradients; None where none were built.
    """

    rows: list[dict[str, Any]]
    layers: dict[str, list[list[float]]]
    coverage: float
    max_rel_error: float | None = None

    def summary(self) -> dict[str, Any]:
        """Return the figures that ``align entangle --json`` prints."""
        shares = {f"share_{name}": float(np.mean([row["case"] == name for row in self.rows])) for name in CASES}
        means = {
            f"{name}_mean": _mean([row[name] for row in self.rows])
            for name in ("cosine", "norm_ratio", "chosen_norm", "rejected_norm", "logps_chosen", "logps_rejected")
        }
        error = {} if self.max_rel_error is None else {"max_rel_error": self.max_rel_error}
        return {"pairs": len(self.rows), **means, **shares, "coverage": self.coverage, **error}


def _mean(values: Sequence[float | None]) -> float | None:
    """Return the mean of what is there: a gradient of zero has no cosine."""
    there = [value for value in values if value is not None]
    return float(np.mean(there)) if there else None


def drawn(pairs: datasets.Dataset, number: int | None, seed: int) -> datasets.Dataset:
    """Return so many pairs drawn at random, in their order, with a column ``row`` of their numbers from 1."""
    numbered = pairs.add_column("row", list(range(1, len(pairs) + 1)))
    if number is None or number >= len(pairs):
        return numbered
    chosen = np.sort(np.random.default_rng(seed).choice(len(pairs), number, replace=False))
    return numbered.select(chosen)


def measured(model: nn.Module, pairs: datasets.Dataset, plan: Plan, pad: int) -> Iterator[Table]:
    """Yield the figures of a model, a batch of pairs at a time; the model is in evaluation mode.

    Raises:
        ValueError: if whole gradients are to be compared and no process holds whole weights.
    """
    collate, left = PairCollator(pad), plan.verify
    device = next(model.parameters()).device
    for start in range(0, len(pairs), plan.batch_size):
        rows = [pairs[i] for i in range(start, min(start + plan.batch_size, len(pairs)))]
        batch: dict[str, Tensor] = {name: tensor.to(device) for name, tensor in collate(rows).items()}  # type: ignore[attr-defined]
        found = _of_batch(model, batch, rows, plan)
        if left > 0:
            found.max_rel_error = _error(model, batch, min(left, len(rows)), found.gradients)
            left -= len(rows)
        yield found


def together(tables: Sequence[Table]) -> Table:
    """Return the figures of several batches as one table."""
    rows = [row for table in tables for row in table.rows]
    parts = tables[0].layers if tables else {}
    weights = [len(table.rows) / len(rows) for table in tables]
    layers = {
        name: np.average([table.layers[name] for table in tables], axis=0, weights=weights).tolist() for name in parts
    }
    errors = [table.max_rel_error for table in tables if table.max_rel_error is not None]
    coverage = min((table.coverage for table in tables), default=1.0)
    return Table(rows=rows, layers=layers, coverage=coverage, max_rel_error=max(errors, default=None))


@dataclass(slots=True)
class _Batch(Table):
    gradients: PairGradients = None  # type: ignore[assignment]


def _of_batch(model: nn.Module, batch: dict[str, Tensor], rows: list[Mapping[str, Any]], plan: Plan) -> _Batch:
    head = output_head(model)
    policy, reference = _logps(model, head, batch, plan)
    pulls = incentives(plan.objective, policy, reference if plan.objective.needs_reference else None)
    sequences, weights = rows_of_pairs(batch, range(len(rows))), None
    if not bool(pulls.factors().all()):
        sequences, weights = doubled(sequences, pulls.chosen, pulls.rejected)
    gradients = measure(model, head, sequences, weights=weights).gradients
    pull = Pull(gradients=gradients, d_w=pulls.d_w.double(), d_l=pulls.d_l.double())
    layers = {name: products[:, :2, :2].mean(0).tolist() for name, products in gradients.by_layer().items()}
    return _Batch(rows=_rows(pull, policy, rows), layers=layers, coverage=gradients.coverage, gradients=gradients)


@torch.no_grad()
def _logps(
    model: nn.Module, head: nn.Module, batch: dict[str, Tensor], plan: Plan
) -> tuple[PairTokenLogps, PairTokenLogps]:
    objective = plan.objective
    extras: dict[str, Any] = {}
    if objective.needs_scores:
        extras = {"chosen_scores": batch["chosen_score"], "rejected_scores": batch["rejected_score"]}
    if objective.needs_prompt:
        raise ValueError(
            "an objective that reads the prompt's tokens moves the model through them too, and the gradients measured "
            "here are of the two responses: choose another objective, or leave the prompt out of this one"
        )
    if objective.needs_draws:
        raise ValueError("an objective that draws tokens at random has no one weight a token; choose another objective")
    options: dict[str, Any] = {"collision": objective.needs_collision, "prompt": objective.needs_prompt}
    policy = replace(pair_logps(model, head, batch, **options), **extras)
    if plan.reference is None:
        return policy, policy
    return policy, replace(pair_logps(plan.reference, output_head(plan.reference), batch, **options), **extras)


def _rows(pull: Pull, policy: PairTokenLogps, rows: list[Mapping[str, Any]]) -> list[dict[str, Any]]:
    metrics, sums = pull.metrics(), policy.summed()
    metrics["chosen_change"], metrics["rejected_change"] = metrics["sgd_chosen"], metrics["sgd_rejected"]
    found = []
    for i, row in enumerate(rows):
        case = next((name for name in CASES if float(metrics[f"share_{name}"][i]) == 1), "none")
        found.append(
            {
                "row": row.get("row"),
                "where": row.get("where"),
                "case": case,
                **{name: _number(metrics[name][i]) for name in COLUMNS},
                "logps_chosen": float(sums.chosen[i]),
                "logps_rejected": float(sums.rejected[i]),
                "length_chosen": int(sums.chosen_lengths[i]),
                "length_rejected": int(sums.rejected_lengths[i]),
            }
        )
    return found


def _number(value: Tensor) -> float | None:
    number = float(value)
    return number if math.isfinite(number) else None


def _error(model: nn.Module, batch: dict[str, Tensor], pairs: int, gradients: PairGradients) -> float:
    exact = brute_force(model, output_head(model), rows_of_pairs(batch, range(pairs)))
    seen = {name: products[:pairs, :2, :2] for name, products in gradients.by_parameter.items()}
    return largest_error(PairGradients(by_parameter=seen, coverage=1.0), exact)
