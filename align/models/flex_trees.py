"""Attention over trees on GPUs: FlexAttention, with a block mask that skips what no token of a block sees."""

from collections.abc import Callable
from typing import Any

import torch
from jaxtyping import Bool, Int32
from torch import Tensor
from torch._dynamo import config as dynamo
from torch.nn import functional as F
from torch.nn.attention.flex_attention import BlockMask, flex_attention
from torch.utils.weak import WeakIdKeyDictionary

BLOCK = 128
"""Tokens of a block's side."""
KERNELS = 64
"""Kernels that may be made in a process. Lengths need two, one for the first batch, one for all others; windows, soft
caps, heads, types, and whether there are gradients need their own. At torch's limit, 8, attention would go on without a
kernel, and hold the scores of all queries and keys."""

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

    mask = block_mask(spans, window)
    with dynamo.patch(recompile_limit=KERNELS):
        return _compiled(  # type: ignore[no-any-return]
            query,
            key,
            value,
            score_mod=None if softcap is None else capped,
            block_mask=mask,
            scale=scaling,
            enable_gqa=query.shape[1] != key.shape[1],
        )


def block_mask(spans: Tensor, window: int | None) -> BlockMask:
    """Return the block mask of spans, made once for as long as they are there.

    Blocks come from the extremes of their spans: nothing as large as queries times keys is ever made. Without a window
    they are those that ``create_block_mask`` finds; with one, some that it leaves out are looked at token by token.
    """
    known = _known.setdefault(spans, {})
    if window not in known:
        ends, depths = spans[:, 0, 0].clone(), spans[:, 0, 1].clone()  # views would keep the key of their own entry
        some, every = _blocks(ends, depths, window)
        known[window] = BlockMask.from_kv_blocks(
            *_ordered(some & ~every),
            *_ordered(every),
            BLOCK_SIZE=BLOCK,
            mask_mod=_rule(ends, depths, window),
            seq_lengths=(ends.shape[1], ends.shape[1]),
        )
    return known[window]  # type: ignore[no-any-return]


def _rule(ends: Tensor, depths: Tensor, window: int | None) -> Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]:
    """Return which query sees which key; a function of tensors and the model's window, not of the batch's length."""
    if window is None:
        return lambda sequence, head, query, key: (key <= query) & (query < ends[sequence, key])
    return lambda sequence, head, query, key: (
        (key <= query) & (query < ends[sequence, key]) & (depths[sequence, query] - depths[sequence, key] < window)
    )


def _blocks(
    ends: Int32[Tensor, "sequences time"], depths: Int32[Tensor, "sequences time"], window: int | None
) -> tuple[Bool[Tensor, "sequences blocks blocks"], Bool[Tensor, "sequences blocks blocks"]]:
    """Return of which blocks of keys some token may be seen by some of a block of queries, and of which all by all."""
    time = ends.shape[1]
    spare = -time % BLOCK
    count = (time + spare) // BLOCK
    first = torch.arange(count, device=ends.device) * BLOCK
    earlier = first[None, :] < first[:, None]
    itself = torch.eye(count, dtype=torch.bool, device=ends.device)

    def extremes(values: Tensor) -> tuple[Tensor, Tensor]:
        low, high = (F.pad(values, (0, spare), value=value) for value in (2**31 - 1, -1))
        return low.view(-1, count, BLOCK).amin(-1), high.view(-1, count, BLOCK).amax(-1)

    soonest, latest = extremes(ends)
    some = earlier & (first[:, None] < latest[:, None, :])
    every = earlier & (first[:, None] + BLOCK <= soonest[:, None, :])
    if window is not None:
        shallow, deep = extremes(depths)
        some &= shallow[:, :, None] - deep[:, None, :] < window
        every &= deep[:, :, None] - shallow[:, None, :] < window
    return some | itself, every


def _ordered(
    blocks: Bool[Tensor, "sequences blocks blocks"],
) -> tuple[Int32[Tensor, "sequences 1 blocks"], Int32[Tensor, "sequences 1 blocks blocks"]]:
    """Return how many blocks of keys each block of queries has, and their numbers, its own before all others."""
    numbers = torch.argsort(blocks.to(torch.int8), dim=-1, descending=True, stable=True)
    return blocks.sum(-1, dtype=torch.int32)[:, None], numbers.to(torch.int32)[:, None]
