"""A few rows of a batch as a batch of their own: enough to check that what is computed faster stays what it is."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from align.data.packing import Row

SCORED = 128
"""Last tokens of a completion that are scored: a few rows' logits, all of them, are no large table then."""
OF_FIRST = 2
"""Most rows of a pair's first side: D2O's samples are many."""
A_ROW = ("weight", "real", "desirable", "chosen_score", "rejected_score")
"""Keys with an entry for each pair, or each single completion."""


def few_rows(
    batch: Mapping[str, Tensor], lay_out: Callable[[Sequence[Row]], dict[str, Tensor]] | None
) -> dict[str, Tensor]:
    """Return the shortest and the longest of a batch's pairs, or of its single completions.

    Args:
        batch: rows of first sides, equally many for each pair and those of a pair one behind the other, then a row for
            each pair; or single completions alone.
        lay_out: returns the layout of rows; None for none.
    """
    ids, real, scored = (batch[name] for name in ("input_ids", "attention_mask", "completion_mask"))
    pairs = len(batch["weight"])
    first = len(ids) - pairs
    each, lengths = first // pairs, real.sum(-1)
    whole = lengths[first:] + lengths[:first].view(pairs, -1).sum(-1)
    picked = sorted({int(whole.argmin()), int(whole.argmax())})
    rows = [("chosen", pair, pair * each + i) for pair in picked for i in range(min(each, OF_FIRST))]
    rows += [("rejected", pair, first + pair) for pair in picked]
    numbers = torch.tensor([number for _, _, number in rows], device=ids.device)
    width = int(lengths[numbers].max())
    place = torch.arange(width, device=ids.device)
    found = {
        "input_ids": ids[numbers, :width],
        "attention_mask": real[numbers, :width],
        "completion_mask": scored[numbers, :width] & (place >= lengths[numbers, None] - SCORED),
        **{name: batch[name][picked] for name in A_ROW if name in batch},
    }
    if lay_out is None:
        return found
    starts = (lengths[numbers] - found["completion_mask"].sum(-1)).tolist()
    tokens = [row[: int(length)].tolist() for row, length in zip(found["input_ids"], lengths[numbers], strict=True)]
    laid = [
        (side, pair, row[:start], row[start:]) for (side, pair, _), row, start in zip(rows, tokens, starts, strict=True)
    ]
    return found | {name: tensor.to(ids.device) for name, tensor in lay_out(laid).items()}
