"""What a preference objective is: token weighting, score, link.

The trainer asks an objective for the loss of each pair; reduction over pairs, weights of rows and logging are the
trainer's. An objective sees log-probabilities only: no model, no batch, no configuration but its own settings.
"""

from abc import ABC, abstractmethod
from typing import ClassVar

from jaxtyping import Float
from torch import Tensor

from align.objectives.logps import PairLogps, PairTokenLogps
from align.objectives.weighting import summed_pairs


class PairObjective(ABC):
    """A loss of preference pairs; subclass as a frozen dataclass whose fields are its settings.

    A subclass gives :meth:`score` and :meth:`link`; one whose tokens do not all count alike gives :meth:`weigh`
    too. An objective that is no function of one score overrides :meth:`__call__`.

    Attributes:
        needs_reference: whether :meth:`score` reads the reference. Where False, the trainer loads none and
            ``reference`` is None.
    """

    needs_reference: ClassVar[bool] = True

    @property
    def reward_scale(self) -> float:
        """Implicit reward of one nat of log-ratio: beta where an objective has one, else 1."""
        return 1.0

    def weigh(self, tokens: PairTokenLogps) -> PairLogps:
        """Turn token log-probabilities into sequence log-probabilities; by default their plain sum."""
        return summed_pairs(tokens)

    @abstractmethod
    def score(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return what the objective compares, in nats; the larger, the more the chosen is preferred."""

    @abstractmethod
    def link(self, score: Float[Tensor, " pairs"]) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair given its score."""

    def __call__(self, policy: PairLogps, reference: PairLogps | None) -> Float[Tensor, " pairs"]:
        """Return the loss of each pair, unreduced.

        Raises:
            ValueError: if the objective needs a reference and got none.
        """
        if self.needs_reference and reference is None:
            raise ValueError(f"{type(self).__name__} compares with a reference; pass its log-probabilities")
        return self.link(self.score(policy, reference))

    def rewards(
        self, policy: PairLogps, reference: PairLogps | None
    ) -> tuple[Float[Tensor, " pairs"], Float[Tensor, " pairs"]]:
        """Return the implicit rewards of chosen and rejected, for logging: ``reward_scale * log-ratio``.

        Without a reference, the policy's own log-probabilities take the place of the log-ratios.
        """
        if reference is None:
            return self.reward_scale * policy.chosen, self.reward_scale * policy.rejected
        return (
            self.reward_scale * (policy.chosen - reference.chosen),
            self.reward_scale * (policy.rejected - reference.rejected),
        )
