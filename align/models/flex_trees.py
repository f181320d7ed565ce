"""Attention over trees on GPUs: FlexAttention, with a block mask that skips what no token of a block sees."""

from typing import Any

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import BlockMask, create_block_mask, flex_attention
from torch.utils.weak import WeakIdKeyDictionary

BLOCK = 128
"""Tokens of a block's side."""

_compiled: Any = torch.compile(flex_attention)
_known: Any = WeakIdKeyDictionary()
"""Block masks of the spans that are in use: all layers of a forward, and its backward, ask for the same."""


def flex_trees(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    spans: Tensor,
    scaling: float | None,
    window: int | None,
    softcap: float | None,
) -> Tensor:
    """Return what :func:`~align.models.tree_attention.tree_attention` does, heads before tokens."""

    def capped(score: Tensor, *_: Tensor) -> Tensor:
        return score if softcap is None else softcap * torch.tanh(score / softcap)

    return _compiled(  # type: ignore[no-any-return]
        query,
        key,
        value,
        score_mod=None if softcap is None else capped,
        block_mask=block_mask(spans, window),
        scale=scaling,
        enable_gqa=query.shape[1] != key.shape[1],
    )


def block_mask(spans: Tensor, window: int | None) -> BlockMask:
    """Return the block mask of spans, made once for as long as they are there."""
    known = _known.setdefault(spans, {})
    if window not in known:
        ends, depths = spans[:, 0, 0], spans[:, 0, 1]
        reach = ends.shape[1] if window is None else window
        count, time = ends.shape
        known[window] = create_block_mask(
            lambda sequence, head, query, key: (
                (key <= query)
                & (query < ends[sequence, key])
                & (depths[sequence, query] - depths[sequence, key] < reach)
            ),
            *(count, None, time, time),
            device=str(spans.device),
            BLOCK_SIZE=BLOCK,
        )
    return known[window]  # type: ignore[no-any-return]
