"""The section ``d2o``: negatives only, held against what the model itself says."""

import math
from dataclasses import dataclass
from typing import Literal

from align.recipe.sync import ReferenceSyncSettings


@dataclass(frozen=True, slots=True, kw_only=True)
class OnlineSettings:
    """Samples of the policy as it trains, in place of those from before training.

    The numbers are a re-implementation's; whether they are the paper's (arXiv:2403.03419) is not known.
    """

    warmup: int = 200
    """Optimiser steps on the samples from before training; the policy is copied first when they are over."""
    every: int = 50
    """Optimiser steps from one copy of the policy that is sampled from to the next."""

    def __post_init__(self) -> None:
        if self.warmup < 0:
            raise ValueError(f"warmup must be at least 0, got {self.warmup}")
        if self.every < 1:
            raise ValueError(f"every must be greater than 0, got {self.every}")


@dataclass(frozen=True, slots=True, kw_only=True)
class D2oSettings:
    """Distributional dispreference optimisation (Duan et al., 2024, arXiv:2403.03419): no chosen response is read.

    11 samples are the paper's. Temperature and nucleus are a re-implementation's; lengths and instructions are ours.
    """

    samples: int = 11
    """K, the model's own responses that each negative is held against."""
    max_new_tokens: int = 64
    """Longest sample, in tokens."""
    temperature: float = 0.8
    """Sampling temperature, > 0."""
    top_p: float = 0.9
    """Nucleus of the distribution that is sampled from, in (0, 1]."""
    batch_size: int = 64
    """Samples drawn at a time."""
    seed: int = 0
    """Seed of the sampling."""
    instructions: str | None = "moral"
    """Put before the prompts while sampling, and not in training: ``moral``, a file with one a line, or null."""
    level: Literal["distribution", "instance"] = "distribution"
    """A negative against the mean of its samples, or against each by itself: the baseline."""
    online: OnlineSettings | None = None
    """Sample from the policy as it trains; absent means from the model as it was before."""
    samples_reference: str = "same"
    """What samples are compared with: ``same`` as negatives (``model.reference``), ``base``, a path or hub name."""
    samples_reference_sync: ReferenceSyncSettings | None = None
    """Let that reference follow the policy (a moving average); it is a copy of the policy then."""

    @property
    def copies(self) -> list[str]:
        """Settings that keep a whole copy of the policy beside it."""
        asked = {
            "online": self.online is not None,
            "samples_reference_sync": self.samples_reference_sync is not None,
            "samples_reference": self.samples_reference == "base",
        }
        return [f"d2o.{name}" for name, there in asked.items() if there]

    def __post_init__(self) -> None:
        for name in ("samples", "max_new_tokens", "batch_size"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be greater than 0, got {getattr(self, name)}")
        if not 0 < self.temperature < math.inf:
            raise ValueError(f"temperature must be greater than 0, got {self.temperature}")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p must lie in (0, 1], got {self.top_p}")
        if self.online is not None and self.level == "instance":
            raise ValueError("online does not apply: level 'instance' makes its pairs before training")
        if self.samples_reference_sync is not None and self.samples_reference not in ("same", "base"):
            raise ValueError("samples_reference_sync moves a copy of the policy: leave samples_reference out")
