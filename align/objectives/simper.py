"""SimPER: the difference of two inverse perplexities, without anything to set."""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from align.objectives.base import SidedObjective
from align.objectives.cards import Card
from align.objectives.logps import SequenceLogps
from align.objectives.registry import OBJECTIVES

SIMPER = Card(
    title="Simple alignment with perplexity",
    loss="exp(b_bar) - exp(a_bar)",
    d_w="exp(a_bar)/n_w",
    d_l="exp(b_bar)/n_l",
    source="Xiao et al., ICLR 2025, https://github.com/tengxiao1/SimPER, scripts/simper_trainer.py",
    checked="source",
    does="Pulls each side as hard as it is likely already: sure completions move, unlikely ones are left alone. "
    "Nothing to set, and nothing holds the policy to where it started.",
)


@OBJECTIVES.register("simper", SIMPER)
@dataclass(frozen=True, slots=True, kw_only=True)
class SimPER(SidedObjective):
    """The rejected's inverse perplexity minus the chosen's; it has no settings."""

    needs_reference = False
    needs_lengths = True

    @property
    def mean_rewards(self) -> bool:
        """Rewards are a token."""
        return True

    def side_score(self, rows: SequenceLogps, reference: SequenceLogps | None) -> Float[Tensor, " sequences"]:
        """Return the inverse perplexity: the geometric mean of the tokens' probabilities."""
        return rows.mean_logps.exp()

    def chosen_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return minus the inverse perplexity."""
        return -score

    def rejected_link(self, score: Float[Tensor, " sequences"]) -> Float[Tensor, " sequences"]:
        """Return the inverse perplexity."""
        return score
