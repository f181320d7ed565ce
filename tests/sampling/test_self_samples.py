"""Samples of prompts that are ids: seeded, cached in parts, instructions before them and nowhere else."""

import re

import pytest

from align.data.template import render_prompt
from align.recipe.d2o import D2oSettings
from align.sampling import self_samples as home
from align.sampling.self_samples import check_room, instruction_ids, load_instructions, self_samples, with_instructions

SETTINGS = D2oSettings(samples=3, max_new_tokens=4, batch_size=2, instructions=None)


def prompts(tokenizer):
    return [render_prompt(tokenizer, text) for text in ("the day", "a warm sun and rain", "tea")]


def test_the_same_again_whoever_begins_where(model, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setattr(home, "PART", 2)  # three parts
    first = self_samples(model, tokenizer, prompts(tokenizer), SETTINGS)
    assert [len(each) for each in first] == [3, 3, 3]
    assert all(1 <= len(ids) <= 4 for each in first for ids in each)
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "other"))
    assert self_samples(model, tokenizer, prompts(tokenizer), SETTINGS, share=(1, 2)) == first
    assert len(list((tmp_path / "other" / "samples").glob("*.jsonl"))) == 3


def test_what_is_drawn_is_not_drawn_again(model, tokenizer, monkeypatch):
    first = self_samples(model, tokenizer, prompts(tokenizer), SETTINGS)

    def never(*_, **__):
        raise AssertionError("sampled again")

    monkeypatch.setattr("align.sampling.cache.sample", never)
    assert self_samples(model, tokenizer, prompts(tokenizer), SETTINGS) == first
    with pytest.raises(AssertionError, match="sampled again"):
        self_samples(model, tokenizer, prompts(tokenizer), D2oSettings(samples=4, max_new_tokens=4))


def test_a_sampling_that_was_cut_off_goes_on(model, tokenizer, monkeypatch, tmp_path):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path))
    monkeypatch.setattr(home, "PART", 2)
    from align.sampling import cache

    whole, calls = cache.sample, []

    def dying(*given, **options):
        for number, batch in enumerate(whole(*given, **options)):
            if len(calls) == 3:
                raise KeyboardInterrupt
            calls.append(number)
            yield batch

    monkeypatch.setattr(cache, "sample", dying)
    with pytest.raises(KeyboardInterrupt):
        self_samples(model, tokenizer, prompts(tokenizer), SETTINGS)
    calls.clear()
    monkeypatch.setattr(cache, "sample", lambda *g, **o: (calls.append(0) or batch for batch in whole(*g, **o)))
    found = self_samples(model, tokenizer, prompts(tokenizer), SETTINGS)
    assert len(calls) == 2  # of five batches three were there
    assert [len(each) for each in found] == [3, 3, 3]


def test_adapters_that_add_nothing_draw_what_the_model_draws(model, tokenizer):
    from align.models.adapters import add_adapter
    from align.models.identity import identity_of
    from tests.diagnostics.tiny import LORA

    def identity(seed):
        import copy

        import torch

        torch.manual_seed(seed)
        return identity_of(add_adapter(copy.deepcopy(model), LORA), adapters=None)

    assert identity(1) == identity(2) == identity_of(model, adapters=False)


def test_instructions_stand_before_prompts_in_turns(tokenizer, tmp_path):
    file = tmp_path / "mine.txt"
    file.write_text("be kind\n\nbe brief\n")
    settings = D2oSettings(samples=3, instructions=str(file))
    first, second, third = with_instructions(tokenizer, [[7, 8]], settings)
    assert tokenizer.decode(first[:-2]) == "<|im_start|>system\nbe kind<|im_end|>\n"
    assert tokenizer.decode(second[:-2]) == "<|im_start|>system\nbe brief<|im_end|>\n"
    assert third == first
    assert first[-2:] == [7, 8]
    both = with_instructions(tokenizer, [[7, 8], [9]], settings)
    assert tokenizer.decode(both[3][:-1]) == "<|im_start|>system\nbe brief<|im_end|>\n"  # they go on with the next row


def test_what_was_drawn_is_told(model, tokenizer, capsys):
    settings = D2oSettings(samples=3, max_new_tokens=4, instructions=None)
    self_samples(model, tokenizer, prompts(tokenizer), settings, label="train_dataset")
    told = capsys.readouterr().out
    assert re.search(r"train_dataset: 9 samples of the model itself \(9 drawn here, [\d,]+ tokens a second\)", told)
    assert re.search(r"\d+% ended within 4 tokens, the others are cut", told)
    self_samples(model, tokenizer, prompts(tokenizer), settings, label="train_dataset")
    told = capsys.readouterr().out
    assert "(all found in the cache)" in told
    assert "lose their ends" not in told
    longest = max(map(len, prompts(tokenizer))) + 1
    self_samples(model, tokenizer, prompts(tokenizer), settings, max_length=longest)
    assert re.search(rf"; [123] lose their ends beyond {longest} tokens with their prompt", capsys.readouterr().out)


def test_instructions_stand_in_place_of_a_templates_own_system_turn(tokenizer, tmp_path, monkeypatch):
    """As Qwen's and SmolLM2's templates begin; a row with a system turn of its own keeps it behind the instruction."""
    own = "{% if messages[0]['role'] != 'system' %}{{ '<|im_start|>system\n be loud<|im_end|>\n' }}{% endif %}"
    monkeypatch.setattr(tokenizer, "chat_template", own + tokenizer.chat_template)
    file = tmp_path / "mine.txt"
    file.write_text("be kind\n")
    settings = D2oSettings(samples=1, instructions=str(file))
    (found,) = with_instructions(tokenizer, [render_prompt(tokenizer, "the day")], settings)
    assert tokenizer.decode(found) == (
        "<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nthe day<|im_end|>\n<|im_start|>assistant\n"
    )
    turns = [{"role": "system", "content": "be brief"}, {"role": "user", "content": "tea"}]
    prompt = tokenizer.apply_chat_template(turns, add_generation_prompt=True).input_ids
    (found,) = with_instructions(tokenizer, [prompt], settings)
    assert tokenizer.decode(found).startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>system\nbe brief")


def test_instructions_that_are_not_there(tmp_path):
    assert len(load_instructions("moral")) == 11
    assert load_instructions(None) == []
    with pytest.raises(ValueError, match="no list and no file 'mortal'"):
        load_instructions("mortal")
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(ValueError, match="has no line"):
        load_instructions(str(tmp_path / "empty.txt"))


def test_templates_without_a_system_turn(tokenizer, monkeypatch):
    monkeypatch.setattr(tokenizer, "chat_template", "{{ raise_exception('no system turn') }}")
    with pytest.raises(ValueError, match=r"no system turn.*d2o.instructions=null"):
        instruction_ids(tokenizer, "moral")
    assert instruction_ids(tokenizer, None) == [[]]


@pytest.mark.parametrize("instructions", [None, "moral"])
def test_samples_that_the_model_has_no_positions_for(model, tokenizer, instructions):
    settings = D2oSettings(samples=2, max_new_tokens=250, instructions=instructions)
    fix = "d2o.instructions=null" if instructions else "data.max_length"
    with pytest.raises(ValueError, match=rf"beyond the model's 256 positions; lower d2o.max_new_tokens .*{fix}"):
        self_samples(model, tokenizer, prompts(tokenizer), settings)


def test_room_for_the_longest_prompt_under_every_instruction(model, tokenizer):
    settings = D2oSettings(samples=2, max_new_tokens=100)
    assert 5 < check_room(model.config, tokenizer, [7] * 5, settings) < 156
    with pytest.raises(ValueError, match="beyond the model's 256 positions"):
        check_room(model.config, tokenizer, [7] * 152, settings)


def test_instructions_go_on_from_batch_to_batch(tokenizer):
    settings = D2oSettings(samples=1, instructions="moral")
    (first,), (second,) = (with_instructions(tokenizer, [[7]], settings, first=number) for number in (0, 1))
    assert first != second
    assert with_instructions(tokenizer, [[7], [7]], settings) == [first, second]
