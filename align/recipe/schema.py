"""The tree a recipe becomes: frozen dataclasses, one a section, checked when made.

A field without a default must be in the recipe. Paths in a recipe start at the folder the command is run in.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any, Literal

from align.objectives.base import Objective
from align.recipe.d2o import D2oSettings
from align.recipe.disentangle import Disentangle
from align.recipe.speed import SpeedSettings
from align.recipe.spo import SpoSettings
from align.recipe.sync import ReferenceSyncSettings


def _check(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


@dataclass(frozen=True, slots=True, kw_only=True)
class LoraSettings:
    """Low-rank adapters (peft's ``LoraConfig``, by its own names)."""

    r: int = 16
    """Rank of the update."""
    lora_alpha: float = 32.0
    """Scale of the update is ``lora_alpha / r``."""
    lora_dropout: float = 0.0
    """Dropout before the adapter, in training only."""
    target_modules: str | list[str] = "all-linear"
    """Names of the layers that get adapters; ``all-linear`` is every linear layer but the head."""

    def __post_init__(self) -> None:
        _check(self.r > 0, f"r must be greater than 0, got {self.r}")
        _check(0 <= self.lora_dropout < 1, f"lora_dropout must lie in [0, 1), got {self.lora_dropout}")


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelSettings:
    """What is trained, and what it is compared with."""

    path: str
    """A folder, a hub name, a ``.gguf`` file, or ``package:NAME`` for the GGUF file inside an installed package."""
    revision: str | None = None
    """Branch, tag or commit of a hub name."""
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"
    """Type of the weights; ``auto`` is what the device does well (see docs/models.md)."""
    attn_implementation: str | None = None
    """transformers' own setting: ``sdpa``, ``eager``, ``flash_attention_2``, ...; its default where absent."""
    trust_remote_code: bool = False
    """Run Python code that comes with the model. Never on unless written here."""
    lora: LoraSettings | None = None
    """Train adapters; absent means every weight is trained."""
    quantization: Literal["nf4", "fp4", "int8"] | None = None
    """Hold the frozen weights beneath adapters in 4 or 8 bits (QLoRA); absent means as they are."""
    reference: str = "auto"
    """``base`` (frozen copy), ``adapter_off``, ``none``, a path or hub name; ``auto`` is what the objective needs."""
    reference_sync: ReferenceSyncSettings | None = None
    """Let the reference follow the policy while it trains; absent means it stays what it is."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthSettings:
    """Pairs made by the model itself: sampled, scored, best against worst."""

    prompts: str = "sentiment"
    """A list that comes with the package (``sentiment``), or a file with a prompt a line."""
    split: Literal["train", "heldout", "all"] = "train"
    """Which part of the list; a prompt's part follows from a hash of its text."""
    limit: int | None = None
    """Use only the first so many prompts of the part."""
    samples: int = 4
    """Completions of each prompt."""
    max_new_tokens: int = 24
    """Longest completion, in tokens."""
    temperature: float = 1.0
    """Sampling temperature, > 0."""
    top_p: float = 1.0
    """Nucleus of the distribution that is sampled from, in (0, 1]."""
    scorer: str = "vader"
    """``vader``, or ``FILE.py:FUNCTION`` with ``FUNCTION(prompts, completions) -> list of float``."""
    min_gap: float = 0.1
    """Least difference of score between chosen and rejected; prompts below it make no pair."""
    batch_size: int = 64
    """Completions sampled at a time."""
    seed: int = 0
    """Seed of the sampling."""

    def __post_init__(self) -> None:
        _check(self.samples >= 2, f"samples must be at least 2 to make a pair, got {self.samples}")
        _check(0 <= self.min_gap < math.inf, f"min_gap must be at least 0, got {self.min_gap}")
        _check_sampling(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceSettings:
    """Where rows come from: a file, a folder, a hub name, or pairs the model makes itself."""

    path: str | None = None
    """A .jsonl, .json, .csv or .parquet file (.gz too), a folder saved by ``datasets``, or a hub name."""
    synth: SynthSettings | None = None
    """Make the pairs with the model instead of reading them."""
    split: str | None = None
    """Named split of a folder or hub name; needed where there are several."""
    config: str | None = None
    """Named configuration of a hub name."""
    format: Literal["auto", "preference", "hh"] = "auto"
    """``hh`` is Anthropic's transcript form; ``auto`` tells from the rows."""
    columns: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    """Our name: theirs. Ours are the columns that docs/data.md names, such as ``prompt``, ``chosen`` or ``label``."""
    weight: float = 1.0
    """Share of the rows to take: 0.5 is a random half, 2 is every row twice."""

    def __post_init__(self) -> None:
        _check((self.path is None) != (self.synth is None), "give either 'path' or 'synth'")
        _check(0 < self.weight < math.inf, f"weight must be greater than 0 and finite, got {self.weight}")
        reads = self.synth is None or not (self.split or self.config or self.columns)
        _check(reads, "synth makes its own rows: split, config and columns do not apply beside it")
        known = {
            *("prompt", "chosen", "rejected", "completion", "label"),
            *("weight", "chosen_score", "rejected_score", "tools"),
        }
        for ours in self.columns:
            _check(ours in known, f"columns has no {ours!r}; known: {', '.join(sorted(known))}")


@dataclass(frozen=True, slots=True, kw_only=True)
class DataSettings:
    """Preference pairs for training and for the held-out evaluation."""

    train: list[SourceSettings]
    """One source or a list of them; a plain string is a path."""
    eval: list[SourceSettings] = field(default_factory=list)
    """Held-out sources, in the same form."""
    eval_fraction: float = 0.0
    """Share of the training prompts held out instead, chosen by a hash of the prompt."""
    max_length: int | None = 1024
    """Longest prompt + completion, in tokens; null is the model's own limit. What is cut is reported."""
    truncation: Literal["keep_start", "keep_end", "drop"] = "keep_start"
    """Cut the end, cut the start of the prompt, or leave the pair out; the same for both sides."""
    on_bad_row: Literal["fail", "skip"] = "fail"
    """Stop at the first row that cannot be used, or leave such rows out and write them beside the run."""
    unpaired: bool | None = None
    """Train on single completions, each desirable or not; pairs are taken apart. Absent: what the objective needs."""

    def __post_init__(self) -> None:
        _check(bool(self.train), "train needs at least one source")
        _check(0 <= self.eval_fraction < 1, f"eval_fraction must lie in [0, 1), got {self.eval_fraction}")
        _check(not (self.eval and self.eval_fraction), "give 'eval' or 'eval_fraction', not both")
        _check(self.max_length is None or self.max_length > 1, "max_length must be at least 2, or null")


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerationSettings:
    """Sample from the base and the aligned model after training, score both, and show them side by side."""

    prompts: str = "sentiment"
    """As in ``data.train.synth``."""
    split: Literal["train", "heldout", "all"] = "heldout"
    """As in ``data.train.synth``."""
    limit: int | None = None
    """Use only the first so many prompts of the part."""
    samples: int = 1
    """Completions of each prompt, from each model."""
    max_new_tokens: int = 24
    """Longest completion, in tokens."""
    temperature: float = 1.0
    """Sampling temperature, > 0."""
    top_p: float = 1.0
    """Nucleus of the distribution that is sampled from, in (0, 1]."""
    scorer: str = "vader"
    """As in ``data.train.synth``."""
    batch_size: int = 64
    """Completions sampled at a time."""
    seed: int = 1234
    """Seed of the sampling; the same for both models."""

    def __post_init__(self) -> None:
        _check(self.samples >= 1, f"samples must be at least 1, got {self.samples}")
        _check_sampling(self)


def _check_sampling(settings: "SynthSettings | GenerationSettings") -> None:
    """Check what both kinds of sampling share."""
    _check(0 < settings.temperature < math.inf, f"temperature must be greater than 0, got {settings.temperature}")
    _check(0 < settings.top_p <= 1, f"top_p must lie in (0, 1], got {settings.top_p}")
    for name in ("max_new_tokens", "batch_size"):
        value = getattr(settings, name)
        _check(value > 0, f"{name} must be greater than 0, got {value}")
    _check(settings.limit is None or settings.limit > 0, f"limit must be greater than 0, got {settings.limit}")


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluationSettings:
    """What is measured on held-out data."""

    confidence: float = 0.95
    """Level of every interval."""
    resamples: int = 2000
    """Bootstrap resamples behind every interval."""
    length_tolerance: float = 0.1
    """Pairs count as length-matched where lengths differ by at most this share of the longer."""
    generation: GenerationSettings | None = None
    """Compare samples of the base and the aligned model after training."""

    def __post_init__(self) -> None:
        _check(0 < self.confidence < 1, f"confidence must lie in (0, 1), got {self.confidence}")
        _check(self.resamples >= 100, f"resamples must be at least 100, got {self.resamples}")
        _check(0 <= self.length_tolerance <= 1, "length_tolerance must lie in [0, 1]")


@dataclass(frozen=True, slots=True, kw_only=True)
class EntanglementSettings:
    """Gradient entanglement of pairs, measured while they train (docs/entanglement.md)."""

    every: int = 20
    """Optimiser steps from one measured step to the next; the first is measured."""
    pairs: int | None = 8
    """Pairs measured in such a step, by each process; null is all of them."""
    optimiser: bool = True
    """Measure too what the optimiser's own step does to them; holds a copy of the trained weights through the step."""

    def __post_init__(self) -> None:
        _check(self.every > 0, f"every must be greater than 0, got {self.every}")
        _check(self.pairs is None or self.pairs > 0, f"pairs must be greater than 0, or null, got {self.pairs}")

    def measures(self, step: int) -> bool:
        """Return whether an optimiser step, counted from 0, is measured."""
        return step % self.every == 0


@dataclass(frozen=True, slots=True, kw_only=True)
class DiagnosticsSettings:
    """What is measured of the training itself."""

    entanglement: EntanglementSettings | None = None
    """How both log-probabilities of a pair are pulled; absent means that it is not measured."""
    verify: bool = False
    """Check the first measured pairs against whole gradients, which takes a forward and a backward for each side."""

    def __post_init__(self) -> None:
        _check(self.entanglement is not None or not self.verify, "verify needs entanglement: there is nothing to check")


@dataclass(frozen=True, slots=True, kw_only=True)
class OutputSettings:
    """Where the run goes."""

    dir: str | None = None
    """Run folder. Absent: ``runs/<recipe>-<digest of the resolved recipe>``, so that no two recipes share one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Recipe:
    """One training run."""

    model: ModelSettings
    data: DataSettings
    objective: Objective
    objective_spec: tuple[Mapping[str, Any], ...] = (MappingProxyType({}),)
    """For each part of the objective, ``file`` and ``name`` of one from a Python file; empty for a registered one."""
    trainer: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    evaluation: EvaluationSettings = field(default_factory=EvaluationSettings)
    diagnostics: DiagnosticsSettings = field(default_factory=DiagnosticsSettings)
    disentangle: Disentangle | None = None
    """What is done so that chosen and rejected log-probabilities part; absent means the objective's plain descent."""
    spo: SpoSettings | None = None
    """Preference degrees that are learned beside the objective; absent means none."""
    d2o: D2oSettings | None = None
    """Train on negatives alone, held against samples of the model itself; absent means on pairs or completions."""
    speed: SpeedSettings = field(default_factory=SpeedSettings)
    output: OutputSettings = field(default_factory=OutputSettings)
