"""The section ``spo``: preference degrees made by removing key content, and the module that learns to tell them."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from itertools import pairwise
from types import MappingProxyType
from typing import Literal

EXTRACTORS = ("rake", "yake", "tfidf", "surprisal")
"""Key-content extractors that come with the package; ``FILE.py:FUNCTION`` is a user's own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DegreeHeadSettings:
    """The module that classifies degrees. The paper's (arXiv:2409.17791) is not known; every default is ours."""

    layer: int = -1
    """Hidden state it reads: -1 is the last layer's, -2 the one before, 0 the embeddings."""
    pooling: Literal["last", "mean"] = "last"
    """The completion's last token, or the mean over its tokens."""
    depth: int = 1
    """Linear layers; with more than one, GELUs stand between them."""
    detached: bool = False
    """Train the head alone: nothing of its loss reaches the policy."""
    shared: bool = False
    """One head for the degrees of chosen and rejected; absent means one each."""
    learning_rate: float | None = 1e-3
    """Of the head, which starts from nothing; null is ``trainer.learning_rate``."""

    def __post_init__(self) -> None:
        if self.depth < 1:
            raise ValueError(f"depth must be at least 1, got {self.depth}")
        if self.learning_rate is not None and not 0 <= self.learning_rate < math.inf:
            raise ValueError(f"learning_rate must be at least 0 and finite, or null, got {self.learning_rate}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DegreeSettings:
    """How versions of lower preference degree are made of a response.

    Which extractor, how many degrees, what shares, and whether words are deleted or masked, is not known of the paper
    (arXiv:2409.17791); every default is ours.
    """

    extractor: str = "rake"
    """``rake``, ``yake``, ``tfidf``, ``surprisal`` (under the reference), or ``FILE.py:FUNCTION``."""
    degrees: int = 4
    """Versions of a response, the whole one among them."""
    shares: list[float] | None = None
    """Share of the key content that each version lacks, rising from 0; absent means evenly spaced, 0 to 1."""
    sides: Literal["both", "chosen", "rejected"] = "both"
    """Responses that versions are made of."""
    removal: Literal["delete", "mask", "nothing"] = "delete"
    """Leave the tokens out, or put a mask in place of each; ``nothing`` keeps as many rows, all whole: a control."""
    mask_token: str | None = None
    """Text of that mask; absent is the tokenizer's mask token, else `` _``."""

    def __post_init__(self) -> None:
        if self.degrees < 2:
            raise ValueError(
                f"degrees must be at least 2, the whole response and one version of it, got {self.degrees}"
            )
        if self.extractor not in EXTRACTORS and ".py:" not in self.extractor:
            raise ValueError(f"no extractor {self.extractor!r}; known: {', '.join(EXTRACTORS)}, or FILE.py:FUNCTION")
        if self.mask_token is not None and self.removal != "mask":
            raise ValueError(f"mask_token does not apply: removal is {self.removal!r}")
        if self.shares is not None:
            self._check_shares(self.shares)

    def _check_shares(self, shares: list[float]) -> None:
        if len(shares) != self.degrees:
            raise ValueError(f"shares needs one number for each of {self.degrees} degrees, got {len(shares)}")
        if shares[0] != 0 or shares[-1] > 1 or any(a >= b for a, b in pairwise(shares)):
            raise ValueError(f"shares must rise from 0, the whole response, to at most 1, got {shares}")

    @property
    def removed(self) -> list[float]:
        """Share of the key content that each version lacks."""
        return self.shares or [k / (self.degrees - 1) for k in range(self.degrees)]

    @property
    def degraded_sides(self) -> tuple[str, ...]:
        """Responses that versions are made of, by name."""
        return ("chosen", "rejected") if self.sides == "both" else (self.sides,)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpoSettings:
    """Self-supervised preference degrees beside any objective (Li et al., 2024, arXiv:2409.17791)."""

    versions: DegreeSettings = field(default_factory=DegreeSettings)
    """How versions of lower degree are made."""
    head: DegreeHeadSettings = field(default_factory=DegreeHeadSettings)
    """What classifies them."""
    loss: Literal["cross_entropy", "coral"] = "cross_entropy"
    """Degrees as classes, or in their order (Cao et al., arXiv:1901.07884)."""
    gamma: float = 0.1
    """Weight of the chosen versions' loss in the whole."""
    gamma_rejected: float | None = None
    """The same of the rejected versions; absent is ``gamma``."""

    def __post_init__(self) -> None:
        for name, value in (("gamma", self.gamma), ("gamma_rejected", self.gamma_rejected)):
            if value is not None and not 0 <= value < math.inf:
                raise ValueError(f"{name} must be at least 0 and finite, got {value}")
        self._check_one_side()

    def _check_one_side(self) -> None:
        sides, default = self.versions.degraded_sides, next(f.default for f in fields(self) if f.name == "gamma")
        unread = {
            "gamma_rejected": sides == ("chosen",) and self.gamma_rejected is not None,
            "gamma": sides == ("rejected",) and self.gamma_rejected is not None and self.gamma != default,
            "head.shared": len(sides) == 1 and self.head.shared,
        }
        for name in (name for name, idle in unread.items() if idle):
            raise ValueError(f"{name} would not be used: versions are made of the {sides[0]} side alone; leave it out")

    @property
    def rows(self) -> int:
        """Versions of a pair's responses, the whole ones among them, at most."""
        return self.versions.degrees * len(self.versions.degraded_sides)

    @property
    def gammas(self) -> Mapping[str, float]:
        """Weight of each side's loss."""
        other = self.gamma if self.gamma_rejected is None else self.gamma_rejected
        return MappingProxyType({"chosen": self.gamma, "rejected": other})
