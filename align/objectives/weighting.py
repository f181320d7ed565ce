"""Step one of an objective, token weighting: from the logp of tokens to the logps of sequences."""

from jaxtyping import Float
from torch import Tensor

from align.objectives.logps import PairLogps, PairTokenLogps, TokenLogps


def summed(tokens: TokenLogps) -> Float[Tensor, " sequences"]:
    """Sum the log-probabilities of each sequence's completion tokens, in nats."""
    return tokens.logp.masked_fill(~tokens.mask, 0.0).sum(-1)


def summed_pairs(tokens: PairTokenLogps) -> PairLogps:
    """Weigh every completion token by one: the plain sequence log-probabilities of both sides."""
    return PairLogps(
        chosen=summed(tokens.chosen),
        rejected=summed(tokens.rejected),
        chosen_lengths=tokens.chosen.lengths,
        rejected_lengths=tokens.rejected.lengths,
    )
