"""Batches of pairs beside versions of their responses that say less."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from align.data.collate import PairCollator, UnpairedCollator, padded
from align.data.degrade import column_of
from align.data.packing import Packing

PREFIX = "degree_"
"""Keys of a batch that are of versions begin with it; each holds a row a version."""


class DegreeCollator(PairCollator):
    """A pair batch with, beside it, a row for every version of its responses, the whole ones among them.

    The rows have ``degree_input_ids``, ``degree_attention_mask`` and ``degree_completion_mask`` as pairs have them;
    ``degree_of`` is their degree, ``degree_pair`` the number of their pair, ``degree_chosen`` whether they are of the
    chosen side. A version that equals the next one is left out.

    Args:
        pad_token_id: what padding is filled with.
        sides: ``chosen``, ``rejected`` or both.
        packing: how pairs, and versions apart from them, are laid out beside the padded rows; None for not at all.
    """

    def __init__(self, pad_token_id: int, sides: Sequence[str], packing: Packing | None = None) -> None:
        super().__init__(pad_token_id, packing=packing)
        self.sides = tuple(sides)

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the batch of prepared pairs that have columns of versions."""
        rows = [
            (pair["prompt_ids"], ids, degree, number, side == "chosen")
            for side in self.sides
            for number, pair in enumerate(pairs)
            for degree, ids in enumerate([pair[f"{side}_ids"], *pair[column_of(side)]])
            if ids
        ]
        return {**super().__call__(pairs), **_beside(rows, self.pad_token_id, self.packing)}  # type: ignore[dict-item]


class UnpairedDegreeCollator(UnpairedCollator):
    """A batch of single completions with, beside it, a row for every version of them, as :class:`DegreeCollator` has.

    ``degree_pair`` is the number of the row here, and ``degree_chosen`` whether it is desirable.

    Args:
        plain: what makes the batch itself.
        sides: ``chosen`` for versions of desirable completions, ``rejected`` for those of undesirable ones, or both.
    """

    def __init__(self, plain: UnpairedCollator, sides: Sequence[str]) -> None:
        super().__init__(
            plain.pad_token_id,
            mismatched=plain.mismatched,
            max_length=plain.max_length,
            stand_ins=plain.stand_ins,
            packing=plain.packing,
        )
        self.sides = tuple(sides)

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Tensor]:  # type: ignore[override]
        """Return the batch of prepared single completions that have a column of versions."""
        versions = [
            (row["prompt_ids"], ids, degree, number, bool(row["desirable"]))
            for number, row in enumerate(rows)
            if ("chosen" if row["desirable"] else "rejected") in self.sides
            for degree, ids in enumerate([row["completion_ids"], *row[column_of("completion")]])
            if ids
        ]
        if not versions:  # none of that side: a row of the other one, which nothing reads
            versions = [(rows[0]["prompt_ids"], rows[0]["completion_ids"], 0, 0, bool(rows[0]["desirable"]))]
        return {**super().__call__(rows), **_beside(versions, self.pad_token_id, self.packing)}  # type: ignore[dict-item]


def _beside(
    rows: Sequence[tuple[Any, Any, int, int, bool]], pad_token_id: int, packing: Packing | None
) -> dict[str, Tensor]:
    ids, real, completion = padded([row[:2] for row in rows], pad_token_id)
    laid = {}
    if packing is not None:
        laid = packing.keys(f"{PREFIX}packed_", [row[:2] for row in rows], [row[3] for row in rows])
    return {
        f"{PREFIX}input_ids": ids,
        f"{PREFIX}attention_mask": real,
        f"{PREFIX}completion_mask": completion,
        f"{PREFIX}of": torch.tensor([row[2] for row in rows]),
        f"{PREFIX}pair": torch.tensor([row[3] for row in rows]),
        f"{PREFIX}chosen": torch.tensor([row[4] for row in rows]),
        **laid,
    }
