"""Log-probabilities as objectives see them: of tokens, of sequences, of pairs.

Three names are never interchanged: ``logp`` is of one token, ``logps`` of a sequence (summed), ``mean_logps``
of a sequence divided by its length. All are natural logarithms, in nats.
"""

from dataclasses import dataclass, replace

from jaxtyping import Bool, Float, Int
from torch import Tensor


@dataclass(frozen=True, slots=True, kw_only=True)
class SequenceLogps:
    """Sequence log-probabilities of a batch of completions.

    Attributes:
        logps: summed log-probability of each completion given its prompt, in nats.
        lengths: tokens of each completion, at least 1.
        baseline: mean log-ratio of policy over reference on completions of other prompts, in nats, without gradient;
            only for objectives that declare ``needs_mismatched``.
    """

    logps: Float[Tensor, " sequences"]
    lengths: Int[Tensor, " sequences"]
    baseline: Float[Tensor, ""] | None = None

    @property
    def mean_logps(self) -> Float[Tensor, " sequences"]:
        """Log-probability a token, in nats."""
        return self.logps / self.lengths

    def pick(self, rows: Bool[Tensor, " sequences"]) -> "SequenceLogps":
        """Return the sequences that ``rows`` marks."""
        return SequenceLogps(logps=self.logps[rows], lengths=self.lengths[rows], baseline=self.baseline)


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogps:
    """Log-probabilities of the completion tokens of a batch of sequences.

    Attributes:
        logp: log-probability of each completion token, in nats; anything where ``mask`` is False.
        mask: True on completion tokens, the closing end-of-sequence token among them.
        log_sum_sq: log of the sum of squared probabilities of the whole vocabulary at each token, without gradient;
            only for objectives that declare ``needs_collision``.
    """

    logp: Float[Tensor, "sequences tokens"]
    mask: Bool[Tensor, "sequences tokens"]
    log_sum_sq: Float[Tensor, "sequences tokens"] | None = None

    @property
    def lengths(self) -> Int[Tensor, " sequences"]:
        """Completion tokens of each sequence."""
        return self.mask.sum(-1)

    def rows(self, start: int, stop: int) -> "TokenLogps":
        """Return the sequences ``start`` to ``stop`` (exclusive)."""
        squares = None if self.log_sum_sq is None else self.log_sum_sq[start:stop]
        return TokenLogps(logp=self.logp[start:stop], mask=self.mask[start:stop], log_sum_sq=squares)

    def summed(self) -> SequenceLogps:
        """Return the plain log-probability of each sequence."""
        return SequenceLogps(logps=self.logp.masked_fill(~self.mask, 0.0).sum(-1), lengths=self.lengths)


@dataclass(frozen=True, slots=True, kw_only=True)
class PairTokenLogps:
    """Token log-probabilities of both sides of a batch of pairs, and what else is known of them.

    Attributes:
        chosen: of the preferred completions.
        rejected: of the others.
        chosen_scores: score of each chosen completion, from the data (columns ``chosen_score``, ``rejected_score``);
            only for objectives that declare ``needs_scores``.
        rejected_scores: the same of the rejected ones.
        prompt: of the prompts' tokens but the first; only for objectives that declare ``needs_prompt``.
        draws: a random number in [0, 1) for each token of the chosen and of the rejected side, the same for policy and
            reference; only for objectives that declare ``needs_draws``.
    """

    chosen: TokenLogps
    rejected: TokenLogps
    chosen_scores: Float[Tensor, " pairs"] | None = None
    rejected_scores: Float[Tensor, " pairs"] | None = None
    prompt: TokenLogps | None = None
    draws: tuple[Float[Tensor, "pairs chosen_tokens"], Float[Tensor, "pairs rejected_tokens"]] | None = None

    def summed(self) -> "PairLogps":
        """Return the plain log-probabilities of both sides: every completion token counts alike."""
        chosen, rejected = self.chosen.summed(), self.rejected.summed()
        return PairLogps(
            chosen=chosen.logps,
            rejected=rejected.logps,
            chosen_lengths=chosen.lengths,
            rejected_lengths=rejected.lengths,
            chosen_scores=self.chosen_scores,
            rejected_scores=self.rejected_scores,
            prompt=None if self.prompt is None else self.prompt.summed(),
        )

    def swapped(self) -> "PairTokenLogps":
        """Return the pairs with chosen and rejected exchanged, as if every label were wrong.

        Scores stay: the better one belongs to the side that is called chosen.
        """
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            draws=None if self.draws is None else (self.draws[1], self.draws[0]),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class PairLogps:
    """Sequence log-probabilities of both sides of a batch of pairs.

    Attributes:
        chosen: summed log-probability of each chosen completion given its prompt, in nats.
        rejected: the same of the rejected completion.
        chosen_lengths: tokens of each chosen completion, at least 1.
        rejected_lengths: tokens of each rejected completion, at least 1.
        chosen_scores: score of each chosen completion from the data; None where no objective needs it.
        rejected_scores: the same of the rejected one.
        prompt: of the prompts' tokens but the first; None where no objective needs it.
        baseline: as in :class:`SequenceLogps`.
    """

    chosen: Float[Tensor, " pairs"]
    rejected: Float[Tensor, " pairs"]
    chosen_lengths: Int[Tensor, " pairs"]
    rejected_lengths: Int[Tensor, " pairs"]
    chosen_scores: Float[Tensor, " pairs"] | None = None
    rejected_scores: Float[Tensor, " pairs"] | None = None
    prompt: SequenceLogps | None = None
    baseline: Float[Tensor, ""] | None = None

    @property
    def mean_chosen(self) -> Float[Tensor, " pairs"]:
        """Log-probability of the chosen completion a token, in nats."""
        return self.chosen / self.chosen_lengths

    @property
    def mean_rejected(self) -> Float[Tensor, " pairs"]:
        """Log-probability of the rejected completion a token, in nats."""
        return self.rejected / self.rejected_lengths

    @property
    def chosen_side(self) -> SequenceLogps:
        """The chosen completions alone."""
        return SequenceLogps(logps=self.chosen, lengths=self.chosen_lengths, baseline=self.baseline)

    @property
    def rejected_side(self) -> SequenceLogps:
        """The rejected completions alone."""
        return SequenceLogps(logps=self.rejected, lengths=self.rejected_lengths, baseline=self.baseline)

    @property
    def score_gap(self) -> Float[Tensor, " pairs"]:
        """Score of the chosen completion minus that of the rejected one.

        Raises:
            ValueError: if the pairs come without scores.
        """
        if self.chosen_scores is None or self.rejected_scores is None:
            raise ValueError("the objective needs scores of the completions: columns chosen_score and rejected_score")
        return self.chosen_scores - self.rejected_scores

    def swapped(self) -> "PairLogps":
        """Return the pairs with chosen and rejected exchanged; scores stay, as in :class:`PairTokenLogps`."""
        return replace(
            self,
            chosen=self.rejected,
            rejected=self.chosen,
            chosen_lengths=self.rejected_lengths,
            rejected_lengths=self.chosen_lengths,
        )

    def detach(self) -> "PairLogps":
        """Return the same values cut off from the graph."""
        return replace(self, chosen=self.chosen.detach(), rejected=self.rejected.detach())
