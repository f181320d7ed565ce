"""How a reference follows the policy: ``model.reference_sync``, and that of samples in ``d2o``."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class ReferenceSyncSettings:
    """A reference that follows the policy (TR-DPO, arXiv:2404.09656)."""

    alpha: float = 0.6
    """Share of the policy in the new reference, in (0, 1]; 1 replaces it."""
    every: int = 512
    """Optimiser steps from one move to the next."""

    def __post_init__(self) -> None:
        if not 0 < self.alpha <= 1:
            raise ValueError(f"alpha must lie in (0, 1], got {self.alpha}")
        if self.every < 1:
            raise ValueError(f"every must be greater than 0, got {self.every}")
