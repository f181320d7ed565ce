"""Token log-probabilities of a batch of pairs: of the sides that are read, and what else an objective needs."""

from collections.abc import Collection, Mapping

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from align.models.layout import Layout
from align.models.logprobs import TiledHead, completion_logps, packed_logps
from align.objectives.logps import PairTokenLogps, TokenLogps


def pair_logps(
    model: nn.Module,
    head: nn.Module,
    batch: Mapping[str, Tensor],
    *,
    sides: Collection[str] = ("chosen", "rejected"),
    collision: bool = False,
    prompt: bool = False,
    layout: Layout | None = None,
    tiled: TiledHead | None = None,
) -> PairTokenLogps:
    """Run the model once on a batch of :class:`~align.data.collate.PairBatch`, on the rows of ``sides`` alone.

    Args:
        model: policy or reference.
        head: its output embedding.
        batch: 2 x pairs rows, the chosen sides first.
        sides: ``chosen``, ``rejected`` or both; the log-probabilities of a side that is left out are NaN.
        collision: whether to add the sum of squared probabilities at each token.
        prompt: whether to add the prompts' tokens but the first, as they stand before the chosen completions.
        layout: of the rows of ``sides``, prompts scored where ``prompt``; None computes them padded.
        tiled: as :func:`~align.models.logprobs.completion_logps`.
    """
    pairs = len(batch["input_ids"]) // 2
    masks = {"chosen": batch["completion_mask"][:pairs], "rejected": batch["completion_mask"][pairs:]}
    tokens = (
        _of_rows(model, head, batch, row_range(pairs, sides), collision=collision, prompt=prompt, tiled=tiled)
        if layout is None
        else packed_logps(model, head, layout, collision=collision, tiled=tiled)
    )
    found = {side: _unknown(mask, tokens.logp.dtype) for side, mask in masks.items()}
    start = 0
    for side in (side for side in ("chosen", "rejected") if side in sides):
        found[side] = tokens.rows(start, start + pairs)
        start += pairs
    prompts = None
    if prompt:
        prompts, found["chosen"] = _split(found["chosen"], masks["chosen"].sum(-1))
    return PairTokenLogps(chosen=_trimmed(found["chosen"]), rejected=_trimmed(found["rejected"]), prompt=prompts)


def _of_rows(
    model: nn.Module,
    head: nn.Module,
    batch: Mapping[str, Tensor],
    rows: slice,
    *,
    collision: bool,
    prompt: bool,
    tiled: TiledHead | None,
) -> TokenLogps:
    """Run the model on padded rows."""
    pairs = len(batch["input_ids"]) // 2
    scored = batch["completion_mask"].clone()
    if prompt:
        scored[:pairs] = batch["attention_mask"][:pairs].bool()
        scored[:, 0] = False
    width = int(batch["attention_mask"][rows].sum(-1).max())
    return completion_logps(
        model,
        head,
        input_ids=batch["input_ids"][rows, :width],
        attention_mask=batch["attention_mask"][rows, :width],
        completion_mask=scored[rows, :width],
        collision=collision,
        tiled=tiled,
    )


def kept_pairs(
    kept: Float[Tensor, "sequences tokens"], completion_mask: Bool[Tensor, "sequences time"]
) -> PairTokenLogps:
    """Return log-probabilities of both sides that were computed before, the chosen sides first."""
    tokens = kept_tokens(kept, completion_mask)
    pairs = len(kept) // 2
    return PairTokenLogps(chosen=_trimmed(tokens.rows(0, pairs)), rejected=_trimmed(tokens.rows(pairs, 2 * pairs)))


def kept_tokens(kept: Float[Tensor, "sequences tokens"], completion_mask: Bool[Tensor, "sequences time"]) -> TokenLogps:
    """Return log-probabilities that were computed before; what stands beyond the end of a completion is 0."""
    place = torch.arange(kept.shape[1], device=kept.device)
    mask = place < completion_mask.sum(-1)[:, None]
    return TokenLogps(logp=kept.masked_fill(~mask, 0.0), mask=mask)


def row_range(pairs: int, sides: Collection[str]) -> slice:
    """Return the rows of a pair batch that hold the sides."""
    return slice(0 if "chosen" in sides else pairs, 2 * pairs if "rejected" in sides else pairs)


def not_computed(like: TokenLogps, rows: int) -> TokenLogps:
    """Return log-probabilities of so many sequences that are not computed, of the type and on the device of others."""
    mask = torch.ones((rows, 1), dtype=torch.bool, device=like.logp.device)
    return _unknown(mask, like.logp.dtype)


def _unknown(mask: Bool[Tensor, "pairs time"], dtype: torch.dtype) -> TokenLogps:
    lengths = mask.sum(-1)
    there = torch.arange(int(lengths.max()), device=mask.device) < lengths[:, None]
    return TokenLogps(logp=torch.full(there.shape, torch.nan, dtype=dtype, device=mask.device), mask=there)


def _trimmed(side: TokenLogps) -> TokenLogps:
    """Cut off the columns that hold no token of any row."""
    longest = int(side.lengths.max())
    squares = None if side.log_sum_sq is None else side.log_sum_sq[:, :longest]
    return TokenLogps(logp=side.logp[:, :longest], mask=side.mask[:, :longest], log_sum_sq=squares)


def _split(side: TokenLogps, completion_lengths: Tensor) -> tuple[TokenLogps, TokenLogps]:
    """Split rows of prompt and completion into both."""
    before = side.lengths - completion_lengths
    prompt = _trimmed(TokenLogps(logp=side.logp, mask=_first(side.logp, before)))
    place = torch.arange(side.logp.shape[1], device=side.logp.device) + before[:, None]
    moved = side.logp.gather(1, place.clamp(max=side.logp.shape[1] - 1))
    return prompt, TokenLogps(logp=moved, mask=_first(side.logp, completion_lengths))


def _first(like: Float[Tensor, "pairs time"], lengths: Tensor) -> Bool[Tensor, "pairs time"]:
    return torch.arange(like.shape[1], device=like.device) < lengths[:, None]
