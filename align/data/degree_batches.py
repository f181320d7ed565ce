"""Batches of pairs beside versions of their responses that say less."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from align.data.collate import PairCollator, padded
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
        ids, real, completion = padded([row[:2] for row in rows], self.pad_token_id)
        laid = {}
        if self.packing is not None:
            laid = self.packing.keys(f"{PREFIX}packed_", [row[:2] for row in rows], [row[3] for row in rows])
        return {
            **super().__call__(pairs),  # type: ignore[dict-item]
            f"{PREFIX}input_ids": ids,
            f"{PREFIX}attention_mask": real,
            f"{PREFIX}completion_mask": completion,
            f"{PREFIX}of": torch.tensor([row[2] for row in rows]),
            f"{PREFIX}pair": torch.tensor([row[3] for row in rows]),
            f"{PREFIX}chosen": torch.tensor([row[4] for row in rows]),
            **laid,
        }
