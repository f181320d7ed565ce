"""From prepared pairs to padded tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor


class PairBatch(TypedDict):
    """B pairs as 2B rows: the chosen sides first, then the rejected ones in the same order.

    Attributes:
        input_ids: prompt and completion, padded on the right.
        attention_mask: 1 on tokens and 0 on padding, by length: the pad token may be the EOS of a row.
        completion_mask: True on the tokens of the completion, the one that closes it among them.
        weight: how much each pair counts in the loss.
    """

    input_ids: Int[Tensor, "sequences tokens"]
    attention_mask: Int[Tensor, "sequences tokens"]
    completion_mask: Bool[Tensor, "sequences tokens"]
    weight: Float[Tensor, " pairs"]


class PairCollator:
    """Pads pairs to the longest sequence of their batch.

    Args:
        pad_token_id: what padding is filled with; any id, nothing is told from it.
        pad_to_multiple_of: round the padded length up to a multiple of this many tokens.
    """

    def __init__(self, pad_token_id: int, pad_to_multiple_of: int | None = None) -> None:
        if pad_to_multiple_of is not None and pad_to_multiple_of < 1:
            raise ValueError(f"pad_to_multiple_of must be at least 1, got {pad_to_multiple_of}")
        self.pad_token_id = pad_token_id
        self.pad_to_multiple_of = pad_to_multiple_of

    def __call__(self, pairs: Sequence[Mapping[str, Any]]) -> PairBatch:
        """Return the batch of pairs with ``prompt_ids``, ``chosen_ids``, ``rejected_ids`` and perhaps ``weight``.

        A missing weight is 1; other keys are left alone.
        """
        sequences = [[*pair["prompt_ids"], *pair[side]] for side in ("chosen_ids", "rejected_ids") for pair in pairs]
        lengths = torch.tensor([len(ids) for ids in sequences])
        starts = torch.tensor([len(pair["prompt_ids"]) for pair in pairs]).repeat(2)
        width = self._width(int(lengths.max()))
        padded = [[*ids, *[self.pad_token_id] * (width - len(ids))] for ids in sequences]
        position = torch.arange(width)
        real = position < lengths[:, None]
        return PairBatch(
            input_ids=torch.tensor(padded),
            attention_mask=real.long(),
            completion_mask=real & (position >= starts[:, None]),
            weight=torch.tensor([pair.get("weight", 1.0) for pair in pairs], dtype=torch.float32),
        )

    def _width(self, longest: int) -> int:
        multiple = self.pad_to_multiple_of or 1
        return -(-longest // multiple) * multiple
