"""Sampled completions are kept by what decides them, and taken up where they stopped."""

import pytest
import torch

from align.sampling.cache import cached_samples
from align.sampling.generate import Decoding

PROMPTS = [f"the day {i}" for i in range(10)]
DECODING = Decoding(max_new_tokens=5, batch_size=4, seed=3)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))


def test_cached_samples_are_taken_up_where_they_stopped(model, tokenizer, monkeypatch):
    import align.sampling.cache as cache

    whole = cached_samples(model, tokenizer, PROMPTS, DECODING)
    (file,) = (cache.cache_root() / "samples").glob("*.jsonl")
    lines = file.read_text().splitlines(keepends=True)
    file.write_text("".join(lines[:6]) + lines[6][:20])  # one whole batch, half of the next, a torn line
    calls = []
    original = cache.sample
    monkeypatch.setattr(cache, "sample", lambda *a, **k: calls.append(k["skip_batches"]) or original(*a, **k))
    assert cached_samples(model, tokenizer, PROMPTS, DECODING) == whole
    assert calls == [1]
    assert cached_samples(model, tokenizer, PROMPTS, DECODING) == whole
    assert calls == [1]


def test_other_weights_are_another_sampling(model, tokenizer):
    before = cached_samples(model, tokenizer, PROMPTS, DECODING)
    with torch.no_grad():
        model.model.embed_tokens.weight.mul_(-1)
    assert cached_samples(model, tokenizer, PROMPTS, DECODING) != before


def test_another_configuration_or_scaling_is_another_sampling(model, tokenizer):
    """What weights do not say decides too: where positions are, and how strong adapters are."""
    import copy

    from align.models.adapters import add_adapter
    from tests.diagnostics.tiny import LORA

    before = cached_samples(model, tokenizer, PROMPTS, DECODING)
    turned = type(model)._from_config(copy.deepcopy(model.config))
    turned.config.rope_parameters["rope_theta"] = 3.0
    turned = type(model)._from_config(turned.config)
    turned.load_state_dict(model.state_dict())
    assert cached_samples(turned, tokenizer, PROMPTS, DECODING) != before
    adapted = add_adapter(copy.deepcopy(model), LORA)
    assert cached_samples(adapted, tokenizer, PROMPTS, DECODING) == before  # nothing is added yet
    with torch.no_grad():
        for name, weight in adapted.named_parameters():
            weight.fill_(0.3) if ".lora_B." in name else None
    weak = cached_samples(adapted, tokenizer, PROMPTS, DECODING)
    for module in adapted.modules():
        if isinstance(getattr(module, "scaling", None), dict):
            module.scaling["default"] *= 8
    assert cached_samples(adapted, tokenizer, PROMPTS, DECODING) != weak


def test_a_file_that_answers_other_prompts_or_is_torn_is_not_believed(model, tokenizer):
    import align.sampling.cache as cache

    whole = cached_samples(model, tokenizer, PROMPTS, DECODING)
    (file,) = (cache.cache_root() / "samples").glob("*.jsonl")
    lines = file.read_bytes().split(b"\n")
    for damaged in (
        b"\n".join([*lines[:4], lines[9], *lines[5:]]),  # a line of another place
        b"\n".join(lines[:5]) + b'\n{"prompt": "\xe2',  # cut off inside a character
    ):
        file.write_bytes(damaged)
        assert cached_samples(model, tokenizer, PROMPTS, DECODING) == whole


def test_other_closing_tokens_and_autocast_are_another_sampling(model, tokenizer):
    import align.sampling.cache as cache

    def files():
        return set((cache.cache_root() / "samples").glob("*.jsonl"))

    cached_samples(model, tokenizer, PROMPTS, DECODING)
    assert len(files()) == 1
    model.generation_config.repetition_penalty = 3.0  # is not read
    cached_samples(model, tokenizer, PROMPTS, DECODING)
    assert len(files()) == 1
    model.generation_config.eos_token_id = [5]
    cached_samples(model, tokenizer, PROMPTS, DECODING)
    assert len(files()) == 2
    with torch.autocast("cpu", torch.bfloat16):
        cached_samples(model, tokenizer, PROMPTS, DECODING)
    assert len(files()) == 3
