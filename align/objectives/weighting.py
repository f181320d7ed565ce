"""Step one of an objective, token weighting: from the logp of tokens to the logps of sequences.

The plain sum is :meth:`align.objectives.logps.PairTokenLogps.summed`; here is what weighs tokens otherwise.
"""

from dataclasses import replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from align.objectives.logps import PairLogps, PairTokenLogps, TokenLogps


def length_desensitised(tokens: PairTokenLogps, alpha: float) -> PairLogps:
    """Weigh tokens beyond the length that both sides of a pair share by ``alpha``; the others by one."""
    shared = torch.minimum(tokens.chosen.lengths, tokens.rejected.lengths)[:, None]
    sides = [
        torch.where(_position(side) <= shared, side.logp, alpha * side.logp).masked_fill(~side.mask, 0.0).sum(-1)
        for side in (tokens.chosen, tokens.rejected)
    ]
    return replace(tokens.summed(), chosen=sides[0], rejected=sides[1])


def down_sampled(tokens: PairTokenLogps) -> PairLogps:
    """Keep as many tokens of the longer side of a pair, drawn at random, as the shorter side has.

    Raises:
        ValueError: if the tokens come without draws.
    """
    if tokens.draws is None:
        raise ValueError("the objective needs a random number for each token: PairTokenLogps.draws")
    shared = torch.minimum(tokens.chosen.lengths, tokens.rejected.lengths)[:, None]
    sides = [
        side.logp.masked_fill(~(side.mask & _lowest(draws, side.mask, shared)), 0.0).sum(-1)
        for side, draws in zip((tokens.chosen, tokens.rejected), tokens.draws, strict=True)
    ]
    return replace(tokens.summed(), chosen=sides[0], rejected=sides[1])


def _position(side: TokenLogps) -> Tensor:
    """Return the place of each completion token in its completion, from 1."""
    return side.mask.cumsum(-1)


def _lowest(
    draws: Float[Tensor, "pairs tokens"], mask: Bool[Tensor, "pairs tokens"], count: Tensor
) -> Bool[Tensor, "pairs tokens"]:
    """Mark the ``count`` tokens of each row with the lowest draws."""
    return draws.masked_fill(~mask, torch.inf).argsort(-1).argsort(-1) < count
