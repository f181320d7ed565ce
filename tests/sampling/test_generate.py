"""Sampling: reproducible, resumable, and from the model's own distribution."""

import copy

import pytest
import torch
from peft import LoraConfig

from align.data.template import render_prompt
from align.models.adapters import add_adapter
from align.sampling.generate import Decoding, Progress, sample, stop_ids

PROMPTS = [f"the day {i}" for i in range(10)]
DECODING = Decoding(max_new_tokens=5, batch_size=4, seed=3)


def flat(batches):
    return [completion for batch in batches for completion in batch]


def test_one_completion_a_prompt_in_order(model, tokenizer):
    completions = flat(sample(model, tokenizer, PROMPTS, DECODING))
    assert [c.prompt for c in completions] == PROMPTS
    for c in completions:
        assert c.prompt_ids == render_prompt(tokenizer, c.prompt)
        assert 1 <= len(c.ids) <= 5
        assert c.ended == (c.ids[-1] == tokenizer.eos_token_id)
        assert tokenizer.eos_token_id not in c.ids[:-1]


def test_seed_decides_and_skipping_batches_changes_nothing(model, tokenizer):
    first = flat(sample(model, tokenizer, PROMPTS, DECODING))
    assert flat(sample(model, tokenizer, PROMPTS, DECODING)) == first
    assert flat(sample(model, tokenizer, PROMPTS, DECODING, skip_batches=2)) == first[8:]
    other = Decoding(max_new_tokens=5, batch_size=4, seed=4)
    assert flat(sample(model, tokenizer, PROMPTS, other)) != first


def test_the_callers_random_numbers_and_mode_are_left_alone(model, tokenizer):
    model.train()
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    flat(sample(model, tokenizer, PROMPTS, DECODING))
    assert torch.equal(torch.rand(3), expected)
    assert model.training


def test_first_tokens_follow_the_models_distribution(model, tokenizer):
    """2,000 first tokens against the softmax: no truncation of the distribution by default."""
    prompt = PROMPTS[0]
    decoding = Decoding(max_new_tokens=1, batch_size=500, seed=0)
    drawn = [c.ids[0] for c in flat(sample(model, tokenizer, [prompt] * 2000, decoding))]
    logits = model(torch.tensor([render_prompt(tokenizer, prompt)])).logits[0, -1]
    expected = logits.softmax(-1).detach()
    observed = torch.bincount(torch.tensor(drawn), minlength=len(expected)) / 2000
    # Total variation of 2,000 draws from up to 400 outcomes; a top-50 cut or a temperature of 0.7 is far outside.
    noise = 0.5 * (expected * (1 - expected) / 2000).sqrt().sum()
    assert float((observed - expected).abs().sum() / 2) < 1.5 * float(noise)


@pytest.mark.parametrize("lora", [False, True])
def test_a_models_own_generation_settings_change_nothing(model, tokenizer, lora):
    """Penalties and the like would make it another distribution than the one that is trained and compared with."""
    expected = flat(sample(copy.deepcopy(model), tokenizer, PROMPTS, DECODING))
    if lora:
        model = add_adapter(model, LoraConfig(r=2, target_modules="all-linear", task_type="CAUSAL_LM"))
    settings = model.generation_config
    for name, value in {"repetition_penalty": 5.0, "min_p": 0.5, "top_k": 3, "max_length": 3}.items():
        setattr(settings, name, value)
    assert flat(sample(model, tokenizer, PROMPTS, DECODING)) == expected
    assert model.generation_config is settings
    assert settings.repetition_penalty == 5.0


def test_closing_tokens_of_a_models_settings_count(model, tokenizer):
    decoding = Decoding(max_new_tokens=30, batch_size=10)
    before = flat(sample(model, tokenizer, PROMPTS, decoding))
    common = before[0].ids[3]
    model.generation_config.eos_token_id = [common]
    assert stop_ids(model, tokenizer) == {common, tokenizer.eos_token_id}
    after = flat(sample(model, tokenizer, PROMPTS, decoding))
    assert after[0].ids[-1] == common
    assert after[0].ended
    assert len(after[0].ids) <= 4


def test_progress_counts_what_is_drawn_alone(model, tokenizer):
    """Rows that have ended draw nothing more, and what they leave undrawn is no longer to come."""
    decoding = Decoding(max_new_tokens=30, batch_size=4)
    model.generation_config.eos_token_id = list(range(0, len(tokenizer), 4))  # most rows end soon
    with Progress(len(PROMPTS) * 30, "sampling") as progress:
        completions = flat(sample(model, tokenizer, PROMPTS, decoding, progress=progress))
        drawn = sum(len(each.ids) for each in completions)
        assert drawn < 0.7 * len(PROMPTS) * 30
        assert progress.tokens == progress.bar.n == progress.bar.total == drawn
        assert progress.samples == len(PROMPTS)
        assert progress.tokens_per_second > 0


def test_only_the_first_process_shows_a_bar(monkeypatch):
    monkeypatch.setenv("RANK", "1")
    with Progress(10, "sampling") as progress:
        assert progress.bar.disable


def test_a_bar_that_waits_shows_nothing_before(capsys):
    with Progress(10, "online samples", delay=60.0) as progress:
        progress.drew(3)
        progress.leave_out(7)
    assert capsys.readouterr().err == ""
    assert progress.bar.total == 3
