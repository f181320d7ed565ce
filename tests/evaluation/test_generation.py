"""Before and after: KL and rewards of two models that are known."""

import pytest
import torch

from align.evaluation.generation import before_and_after
from align.recipe.schema import EvaluationSettings, GenerationSettings


@pytest.fixture
def settings(tmp_path):
    (tmp_path / "length.py").write_text("def score(p, completions):\n    return [float(len(c)) for c in completions]\n")
    (tmp_path / "prompts.txt").write_text("".join(f"the day {i}\n" for i in range(60)))
    return GenerationSettings(
        prompts=str(tmp_path / "prompts.txt"),
        split="all",
        max_new_tokens=3,
        scorer=f"{tmp_path / 'length.py'}:score",
        batch_size=16,
    )


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))


def other_model(model, scale=1.15):
    import copy

    other = copy.deepcopy(model)
    with torch.no_grad():
        other.model.norm.weight.mul_(scale)
    return other


def test_a_model_against_itself(model, tokenizer, settings):
    result = before_and_after(model, model, tokenizer, settings, EvaluationSettings())
    assert result.base == result.aligned
    assert result.summary["kl"]["value"] == pytest.approx(0.0, abs=1e-5)
    assert result.summary["reward"]["difference"]["value"] == 0.0
    assert result.summary["win_rate"]["value"] == 0.5


def test_kl_agrees_with_the_exact_one(model, tokenizer, settings):
    """One token a completion: the Monte-Carlo estimate against the sum over the vocabulary, within its interval."""
    from dataclasses import replace

    from align.data.template import render_prompt
    from align.sampling.prompts import load_prompts

    aligned = other_model(model)
    settings = replace(settings, max_new_tokens=1, samples=30)
    estimate = before_and_after(model, aligned, tokenizer, settings, EvaluationSettings(confidence=0.999)).summary["kl"]
    exact = []
    for prompt in load_prompts(settings.prompts):
        ids = torch.tensor([render_prompt(tokenizer, prompt)])
        p, q = (m(ids).logits[0, -1].detach().double().log_softmax(-1) for m in (aligned, model))
        exact.append(float((p.exp() * (p - q)).sum()))
    assert estimate["low"] < sum(exact) / len(exact) < estimate["high"]
    assert estimate["value"] > 0
