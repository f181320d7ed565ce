"""The section ``claim`` of a method's recipe: arms, seeds, how arms are tuned, and what must come out."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

Overrides = Mapping[str, Any]
"""Settings of the recipe by their dotted keys, such as ``settings.temperature``."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Relation:
    """One thing that must come out: of each seed a number, whose interval over seeds lies above ``by``.

    ``over: ARM`` is the figure of ``arm`` minus that of the other, seed by seed; ``under: ARM`` the other way round;
    neither is the figure itself, which ``at_least`` or ``at_most`` holds against a level.
    """

    figure: str
    """Name of the figure."""
    arm: str | None = None
    """Whose; absent means the first arm."""
    over: str | None = None
    """The arm that must come out lower."""
    under: str | None = None
    """The arm that must come out higher."""
    by: float = 0.0
    """How far apart the two must be."""
    relative: bool = False
    """Whether ``by`` is a share of the other arm's figure."""
    at_least: float | None = None
    """Level that the figure must reach."""
    at_most: float | None = None
    """Level that it must not exceed."""
    asserted: bool = True
    """Whether the verdict needs it; false only reports it."""

    def __post_init__(self) -> None:
        given = [name for name in ("over", "under", "at_least", "at_most") if getattr(self, name) is not None]
        if len(given) != 1:
            found = ", ".join(given) or "none"
            raise ValueError(f"{self.figure}: give one of over, under, at_least and at_most, got {found}")
        compares = given[0] in ("over", "under")
        if compares and self.arm == getattr(self, given[0]):
            raise ValueError(f"{self.figure}: an arm is not compared with itself, got {self.arm!r} twice")
        if not compares and (self.by or self.relative):
            raise ValueError(f"{self.figure}: by and relative go with over and under")
        if not math.isfinite(self.by):
            raise ValueError(f"{self.figure}: by must be finite, got {self.by}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Tuning:
    """How every arm is tuned before it is compared: the same number of trials each, on seeds of their own."""

    figure: str
    """Of validation data, never of test data; the largest mean over the seeds is chosen."""
    seeds: list[int]
    """Seeds of the trials; none of those the claim is tested on."""
    trials: list[Overrides] = field(default_factory=list)
    """Settings that every arm tries."""
    arms: Mapping[str, list[Overrides]] = field(default_factory=lambda: MappingProxyType({}))
    """Settings that one arm tries in their place; as many as the others try."""
    smallest: bool = False
    """Whether the smallest mean is chosen instead."""

    def __post_init__(self) -> None:
        if not self.seeds:
            raise ValueError("seeds needs at least one seed")
        counts = {len(trials) for trials in self.arms.values()} | ({len(self.trials)} if self.trials else set())
        for trials in (self.trials, *self.arms.values()):
            if any(trial in trials[:place] for place, trial in enumerate(trials)):
                raise ValueError("trials must differ: the same settings stand there twice")
        if len(counts) != 1 or min(counts) < 2:
            raise ValueError("trials must be at least two settings, and as many for every arm")


@dataclass(frozen=True, slots=True, kw_only=True)
class Claim:
    """What a paper says, small enough to be tried here."""

    says: str
    """The claim, in a sentence."""
    seeds: list[int]
    """Seeds of the comparison, at least three; ``trainer.seed`` of each run."""
    arms: Mapping[str, Overrides]
    """The method first, then the baselines: a name and what differs from the recipe."""
    relations: list[Relation]
    """What must come out, the headline first."""
    tuning: Tuning | None = None
    """How arms are tuned; absent needs ``untuned``."""
    untuned: str | None = None
    """Why nothing was tuned, where there is nothing to tune."""
    figures: list[str] = field(default_factory=list)
    """Further figures that the table shows."""
    long: bool = False
    """Whether it takes more than four minutes on two cores."""
    tried: list[str] = field(default_factory=list)
    """What came out before, with other seeds or settings, a few sentences each: what was looked at stays told."""

    def __post_init__(self) -> None:
        if len(set(self.seeds)) < 3 or len(set(self.seeds)) != len(self.seeds):
            raise ValueError(f"seeds must be at least three different ones, got {self.seeds}")
        if not self.arms or not self.relations:
            raise ValueError("arms and relations must not be empty")
        for relation in self.relations:
            for arm in (relation.arm, relation.over, relation.under):
                if arm is not None and arm not in self.arms:
                    raise ValueError(f"relations: there is no arm {arm!r}; arms: {', '.join(self.arms)}")
        if not any(relation.asserted for relation in self.relations):
            raise ValueError("relations: at least one must be asserted")
        if self.tuning is not None:
            self._check_tuning(self.tuning)

    def _check_tuning(self, tuning: Tuning) -> None:
        shared = set(tuning.seeds) & set(self.seeds)
        if shared:
            raise ValueError(f"tuning: seeds {sorted(shared)} are those of the comparison; tune on others")
        unknown = set(tuning.arms) - set(self.arms)
        if unknown:
            raise ValueError(f"tuning: there is no arm {', '.join(map(repr, sorted(unknown)))}")
        if not tuning.trials and set(tuning.arms) != set(self.arms):
            raise ValueError("tuning: every arm needs trials, or give trials for all")
        for arm, own in self.arms.items():
            for trial in self.trials_of(arm):
                if set(trial) & set(own):
                    raise ValueError(
                        f"tuning: a trial of {arm!r} sets {', '.join(set(trial) & set(own))}, which makes the arm"
                    )

    @property
    def tuned_alike(self) -> bool:
        """Whether every arm was tuned as long as the others, or nothing was there to tune."""
        return self.tuning is not None or self.untuned is not None

    def trials_of(self, arm: str) -> list[Overrides]:
        """Return the settings an arm tries, none where nothing is tuned."""
        return [] if self.tuning is None else list(self.tuning.arms.get(arm, self.tuning.trials))
