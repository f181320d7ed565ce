"""Before and after: completions of the base and of the aligned model, scored, on held-out prompts."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm
from transformers import PreTrainedTokenizerBase

from align.evaluation.comparison import Samples, compare_samples
from align.models.logprobs import batch_logps, output_head
from align.recipe.schema import EvaluationSettings, GenerationSettings
from align.sampling.cache import cached_samples
from align.sampling.generate import Completion, Decoding
from align.sampling.prompts import load_prompts
from align.sampling.scorers import load_scorer


@dataclass(frozen=True, slots=True, kw_only=True)
class BeforeAfter:
    """Samples of both models, and what comparing them says."""

    base: Samples
    aligned: Samples
    summary: dict[str, Any]


def before_and_after(
    base: Any,
    aligned: Any,
    tokenizer: PreTrainedTokenizerBase,
    settings: GenerationSettings,
    evaluation: EvaluationSettings,
) -> BeforeAfter:
    """Sample from two models with the same random numbers, score the samples, and compare.

    Args:
        base: the model before training, as a model that generates.
        aligned: the model after training; KL is measured from it to ``base``, on its own samples.
        tokenizer: of both.
        settings: prompts, decoding, scorer.
        evaluation: level of the intervals.
    """
    prompts = load_prompts(settings.prompts, settings.split, settings.limit)
    repeated = [prompt for prompt in prompts for _ in range(settings.samples)]
    decoding = Decoding.of(settings)
    completions = {
        name: cached_samples(model, tokenizer, repeated, decoding, label=f"sampling, {name} model")
        for name, model in (("base", base), ("aligned", aligned))
    }
    samples = {name: _scored(found, settings.scorer) for name, found in completions.items()}
    ratios = _log_ratios(completions["aligned"], aligned, base, settings)
    summary = compare_samples(samples["base"], samples["aligned"], ratios, evaluation)
    return BeforeAfter(base=samples["base"], aligned=samples["aligned"], summary=summary)


def _scored(completions: Sequence[Completion], scorer: str) -> Samples:
    prompts, texts = [c.prompt for c in completions], [c.text for c in completions]
    return Samples(
        prompts=prompts,
        completions=texts,
        scores=load_scorer(scorer)(prompts, texts),
        lengths=[len(c.ids) for c in completions],
        ended=[c.ended for c in completions],
    )


def _log_ratios(
    completions: Sequence[Completion], aligned: Any, base: Any, settings: GenerationSettings
) -> list[float]:
    with tqdm(total=2 * len(completions), desc="KL to the base", unit="seq", leave=False) as bar:
        policy, reference = (
            _logps(model, completions, settings.batch_size, settings.temperature, bar) for model in (aligned, base)
        )
    return [ours - theirs for ours, theirs in zip(policy, reference, strict=True)]


@torch.inference_mode()
def _logps(model: Any, completions: Sequence[Completion], batch_size: int, temperature: float, bar: Any) -> list[float]:
    model.eval()
    sums: list[float] = []
    for start in range(0, len(completions), batch_size):
        batch = _padded(completions[start : start + batch_size], model.device)
        tokens = batch_logps(model, output_head(model), batch, temperature=temperature)
        sums.extend(tokens.summed().logps.tolist())
        bar.update(len(tokens.logp))
    return sums


def _padded(completions: Sequence[Completion], device: torch.device) -> dict[str, Tensor]:
    rows = [(len(c.prompt_ids), c.prompt_ids + c.ids) for c in completions]
    longest = max(len(ids) for _, ids in rows)
    input_ids = torch.zeros(len(rows), longest, dtype=torch.long, device=device)
    position = torch.arange(longest, device=device)
    for row, (_, ids) in enumerate(rows):
        input_ids[row, : len(ids)] = torch.tensor(ids, device=device)
    lengths = torch.tensor([len(ids) for _, ids in rows], device=device)[:, None]
    starts = torch.tensor([start for start, _ in rows], device=device)[:, None]
    return {
        "input_ids": input_ids,
        "attention_mask": (position < lengths).long(),
        "completion_mask": (position >= starts) & (position < lengths),
    }
