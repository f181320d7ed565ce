"""Sampling: reproducible, resumable, and from the model's own distribution."""

import torch

from align.data.template import render_prompt
from align.sampling.generate import Decoding, sample

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
