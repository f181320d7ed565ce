"""Preference pairs that a model makes itself: sampled, scored, best against worst."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from transformers import PreTrainedTokenizerBase

from align.data.cache import written_whole
from align.recipe.schema import SynthSettings
from align.sampling.cache import cached_samples
from align.sampling.generate import Completion, Decoding
from align.sampling.prompts import load_prompts
from align.sampling.scorers import load_scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class ScoredPair:
    """Best and worst completion of a prompt, by the scorer.

    The fields are the columns of the file that ``align data synth`` writes; any trainer reads them as a
    conversational preference row.
    """

    prompt: list[dict[str, str]]
    chosen: list[dict[str, str]]
    rejected: list[dict[str, str]]
    chosen_score: float
    rejected_score: float
    chosen_ended: bool
    rejected_ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class SynthReport:
    """What came of a synthesis."""

    prompts: int
    completions: int
    pairs: int
    mean_score: float
    mean_gap: float

    def __str__(self) -> str:
        return (
            f"{self.pairs} pairs from {self.prompts} prompts and {self.completions} completions; "
            f"mean score {self.mean_score:.3f}, mean gap {self.mean_gap:.3f}"
        )


def synthesise(
    model: Any, tokenizer: PreTrainedTokenizerBase, settings: SynthSettings
) -> tuple[list[ScoredPair], SynthReport]:
    """Sample completions of every prompt, score them, and pair the best with the worst.

    Samples are cached apart from scores, so another scorer or gap samples nothing again.

    Raises:
        ValueError: if no prompt gives a pair.
    """
    scorer = load_scorer(settings.scorer)
    prompts = load_prompts(settings.prompts, settings.split, settings.limit)
    decoding = Decoding.of(settings)
    repeated = [prompt for prompt in prompts for _ in range(settings.samples)]
    completions = cached_samples(model, tokenizer, repeated, decoding, label="sampling pairs")
    scores = scorer([c.prompt for c in completions], [c.text for c in completions])
    pairs = [
        pair
        for group in _groups(list(zip(completions, scores, strict=True)), settings.samples)
        if (pair := best_against_worst(group, settings.min_gap)) is not None
    ]
    if not pairs:
        raise ValueError(
            f"none of {len(prompts)} prompts gave two completions whose scores differ by {settings.min_gap} or more; "
            "lower min_gap, or raise samples or temperature"
        )
    return pairs, _report(prompts, scores, pairs)


def best_against_worst(scored: Sequence[tuple[Completion, float]], min_gap: float) -> ScoredPair | None:
    """Return the pair of the highest and the lowest score, or None where they differ by less than ``min_gap``.

    Completions without text are left out; of equal scores the earlier counts.
    """
    with_text = [item for item in scored if item[0].text]
    if len(with_text) < 2:
        return None
    best = max(with_text, key=lambda item: item[1])
    worst = min(with_text, key=lambda item: item[1])
    if best[1] - worst[1] < max(min_gap, 1e-9) or best[0].text == worst[0].text:
        return None
    return ScoredPair(
        prompt=[{"role": "user", "content": best[0].prompt}],
        chosen=[{"role": "assistant", "content": best[0].text}],
        rejected=[{"role": "assistant", "content": worst[0].text}],
        chosen_score=best[1],
        rejected_score=worst[1],
        chosen_ended=best[0].ended,
        rejected_ended=worst[0].ended,
    )


def write_pairs(file: Path, pairs: Sequence[ScoredPair]) -> None:
    """Write pairs as JSON lines, whole or not at all.

    Raises:
        ValueError: if the file exists with other content; nothing is overwritten.
    """
    text = "".join(json.dumps(asdict(pair), ensure_ascii=False) + "\n" for pair in pairs)
    if file.exists():
        if file.read_text(encoding="utf-8") == text:
            return
        raise ValueError(f"{file} exists with other content; choose another name or remove it")
    with written_whole(file) as partial:
        partial.write_text(text, encoding="utf-8")


def _groups(items: list[tuple[Completion, float]], size: int) -> Iterator[list[tuple[Completion, float]]]:
    remaining = iter(items)
    while group := list(islice(remaining, size)):
        yield group


def _report(prompts: Sequence[str], scores: Sequence[float], pairs: Sequence[ScoredPair]) -> SynthReport:
    return SynthReport(
        prompts=len(prompts),
        completions=len(scores),
        pairs=len(pairs),
        mean_score=sum(scores) / len(scores),
        mean_gap=sum(p.chosen_score - p.rejected_score for p in pairs) / len(pairs),
    )
