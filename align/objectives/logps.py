"""Log-probabilities as objectives see them: of tokens, of sequences, of pairs.

Three names are never interchanged: ``logp`` is of one token, ``logps`` of a sequence (summed), ``mean_logps``
of a sequence divided by its length. All are natural logarithms, in nats.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogps:
    """Log-probabilities of the completion tokens of a batch of sequences.

    Attributes:
        logp: log-probability of each completion token, in nats; anything where ``mask`` is False.
        mask: True on completion tokens, the closing end-of-sequence token among them.
    """

    logp: Float[Tensor, "sequences tokens"]
    mask: Bool[Tensor, "sequences tokens"]

    @property
    def lengths(self) -> Int[Tensor, " sequences"]:
        """Completion tokens of each sequence."""
        return self.mask.sum(-1)

    def rows(self, start: int, stop: int) -> "TokenLogps":
        """Return the sequences ``start`` to ``stop`` (exclusive)."""
        return TokenLogps(logp=self.logp[start:stop], mask=self.mask[start:stop])


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTokenLogps:
    """Token log-probabilities of both sides of a batch of pairs."""

    chosen: TokenLogps
    rejected: TokenLogps


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLogps:
    """Sequence log-probabilities of both sides of a batch of pairs.

    Attributes:
        chosen: summed log-probability of each chosen completion given its prompt, in nats.
        rejected: the same of the rejected completion.
        chosen_lengths: tokens of each chosen completion, at least 1.
        rejected_lengths: tokens of each rejected completion, at least 1.
    """

    chosen: Float[Tensor, " pairs"]
    rejected: Float[Tensor, " pairs"]
    chosen_lengths: Int[Tensor, " pairs"]
    rejected_lengths: Int[Tensor, " pairs"]

    @property
    def mean_chosen(self) -> Float[Tensor, " pairs"]:
        """Log-probability of the chosen completion a token, in nats."""
        return self.chosen / self.chosen_lengths

    @property
    def mean_rejected(self) -> Float[Tensor, " pairs"]:
        """Log-probability of the rejected completion a token, in nats."""
        return self.rejected / self.rejected_lengths

    def detach(self) -> "PairLogps":
        """Return the same values cut off from the graph."""
        return PairLogps(
            chosen=self.chosen.detach(),
            rejected=self.rejected.detach(),
            chosen_lengths=self.chosen_lengths,
            rejected_lengths=self.rejected_lengths,
        )
