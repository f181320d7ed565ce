"""A run's model and pairs before there are any: as the run would have them, and refused where they do not fit."""

import json
import shutil

import pytest
import torch

from align.data.prepare import prepare_pairs, split_by_prompt
from align.objectives.registry import OBJECTIVES
from align.recipe.load import load_recipe
from align.recipe.trainer_arguments import training_arguments
from align.trainers.planned import check_vocabulary, computing_in, plan_model, plan_rows, sampled_tokens
from tests.conftest import tiny_config


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file):
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, eval_fraction: 0.3, max_length: 40}}\n"
        "objective: dpo\ntrainer: {use_cpu: true}\n"
    )
    return lambda *overrides: load_recipe(path, overrides)


def planned(recipe, tmp_path):
    return plan_model(recipe, training_arguments(recipe, tmp_path))


def resized(model_dir, folder, vocabulary):
    """A model with another vocabulary and the same tokenizer."""
    from transformers import AutoTokenizer, LlamaForCausalLM

    shutil.copytree(model_dir, folder)
    tokenizer = AutoTokenizer.from_pretrained(model_dir)
    LlamaForCausalLM(tiny_config(tokenizer, vocab_size=vocabulary)).save_pretrained(folder)
    return folder


def test_the_pairs_are_those_that_training_will_find(recipe, tokenizer, tmp_path):
    found = recipe()
    model = planned(found, tmp_path)
    with plan_rows(found, model, tmp_path) as pairs:
        assert not pairs.synthetic
        again = prepare_pairs(found.data.train, model.tokenizer, max_length=40, truncation="keep_start")
        assert again.cached
        train, held_out = split_by_prompt(again, 0.3)
        assert pairs.train["where"][:] == train["where"][:]
        assert pairs.held_out["where"][:] == held_out["where"][:]


@pytest.fixture
def synth(recipe, tmp_path):
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"the day {i}\n" for i in range(20)))
    (tmp_path / "s.py").write_text("def score(prompts, completions):\n    return [0.0 for _ in completions]\n")
    asked = f"prompts: {prompts}, split: all, scorer: '{tmp_path / 's.py'}:score', max_new_tokens: 7"
    return recipe(f"data.train={{synth: {{{asked}}}}}")


def test_pairs_that_are_not_made_yet_are_stood_in_for(synth, tmp_path, pairs_file):
    model = planned(synth, tmp_path)
    with plan_rows(synth, model, tmp_path) as pairs:
        assert pairs.synthetic
        assert len(pairs.train) + len(pairs.held_out) == 20
        assert {len(ids) for ids in pairs.train["chosen_ids"]} == {7}
        held_out = set(pairs.held_out["prompt_hash"])
    # Prompts fall on the side that they will fall on once their pairs are made.
    made = tmp_path / "pairs" / "training-0.jsonl"
    made.parent.mkdir()
    made.write_text(pairs_file.read_text())
    with plan_rows(synth, model, tmp_path) as pairs:
        assert not pairs.synthetic
        shared = {json.loads(line)["prompt"][0]["content"] for line in made.read_text().splitlines()[:20]}
        assert shared == {f"the day {i}" for i in range(20)}
        assert held_out <= set(pairs.held_out["prompt_hash"])


def test_what_a_stage_samples(synth, tokenizer):
    from align.data.template import render_prompt

    tokens, longest = sampled_tokens(synth.data.train[0].synth, tokenizer)
    sizes = [len(render_prompt(tokenizer, f"the day {i}")) for i in range(20)]
    assert (tokens.sequences, tokens.prompt_tokens, tokens.new_tokens) == (80, 4 * sum(sizes), 80 * 7)
    assert longest == max(sizes)


def test_number_types_as_a_run_chooses_them(recipe, tmp_path):
    assert planned(recipe("model.dtype=bfloat16"), tmp_path).arithmetic == torch.bfloat16
    model = planned(recipe("trainer.bf16=true", "model.dtype=float32"), tmp_path)
    assert (model.precision.weights, model.autocast) == (torch.float32, torch.bfloat16)
    assert planned(recipe("trainer.bf16=false"), tmp_path).autocast is None


def test_a_reference_of_its_own(recipe, tmp_path, model_dir):
    model = planned(recipe(f"model.reference={model_dir}"), tmp_path)
    assert model.reference == str(model_dir)
    assert model.other is not None
    assert planned(recipe("model.lora={r: 2}"), tmp_path).reference == "adapter_off"


def test_a_reference_with_another_vocabulary_is_refused(recipe, tmp_path, model_dir):
    other = tmp_path / "other"
    shutil.copytree(model_dir, other)
    file = other / "tokenizer.json"
    told = json.loads(file.read_text())
    vocabulary = told["model"]["vocab"]
    first, second = [token for token, number in vocabulary.items() if number in (50, 51)]
    vocabulary[first], vocabulary[second] = vocabulary[second], vocabulary[first]
    file.write_text(json.dumps(told))
    with pytest.raises(ValueError, match=r"model.reference .* has another vocabulary than model.path: 2 of"):
        planned(recipe(f"model.reference={other}"), tmp_path)


def test_ids_without_a_row_in_the_embedding(recipe, tmp_path, model_dir, tokenizer):
    small = planned(recipe(f"model.path={resized(model_dir, tmp_path / 'small', 310)}"), tmp_path)
    with pytest.raises(ValueError, match=r"the pairs use token id 315, but the embedding has 310 rows"):
        check_vocabulary(small, 315)
    (warning,) = check_vocabulary(small, 300)
    assert f"knows {len(tokenizer)} tokens" in warning
    assert check_vocabulary(planned(recipe(), tmp_path), 300) == []


def test_checkpointing_needs_a_model_that_can(recipe, tmp_path, monkeypatch):
    from transformers import LlamaForCausalLM

    asked = recipe("trainer.activation_checkpointing=true")
    planned(asked, tmp_path)
    monkeypatch.setattr(LlamaForCausalLM, "supports_gradient_checkpointing", False)
    with pytest.raises(
        ValueError, match=r"trainer.activation_checkpointing=true with model.path .*does not support it"
    ):
        planned(asked, tmp_path)


def test_single_completions_are_those_that_training_will_find(recipe, tmp_path):
    from align.data.prepare import prepare_unpaired

    found = recipe("objective=kto")
    model = planned(found, tmp_path)
    with plan_rows(found, model, tmp_path) as rows:
        assert rows.noun == "completion"
        again = prepare_unpaired(found.data.train, model.tokenizer, max_length=40, truncation="keep_start")
        assert again.cached
        assert rows.train["where"][:] == split_by_prompt(again, 0.3)[0]["where"][:]


def test_pairs_that_are_not_made_yet_are_taken_apart(synth, tmp_path):
    from dataclasses import replace

    asked = replace(synth, data=replace(synth.data, unpaired=True), objective=OBJECTIVES.build("bco_pair"))
    with plan_rows(asked, planned(asked, tmp_path), tmp_path) as rows:
        assert len(rows.train) + len(rows.held_out) == 40
        assert sum(rows.train["desirable"]) == len(rows.train) / 2


def test_pairs_that_are_not_made_yet_will_have_scores(synth, tmp_path):
    from dataclasses import replace

    asked = replace(synth, objective=OBJECTIVES.build("odpo"))
    with plan_rows(asked, planned(asked, tmp_path), tmp_path) as rows:
        assert set(rows.train["chosen_score"]) == {1.0}


def test_held_out_pairs_need_scores_too(recipe, tmp_path, pairs_file):
    scored = tmp_path / "scored.jsonl"
    rows = [json.loads(line) | {"chosen_score": 2, "rejected_score": 1} for line in pairs_file.read_text().splitlines()]
    scored.write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = recipe("objective=odpo", f"data.train={scored}", "data.eval_fraction=0", f"data.eval={pairs_file}")
    with (
        pytest.raises(ValueError, match=r"pairs.jsonl:1: the objective needs a score"),
        plan_rows(asked, planned(asked, tmp_path), tmp_path),
    ):
        pass


def test_number_types_on_gpus_are_theirs(recipe, tmp_path):
    found = recipe("model.lora={r: 2}")
    model = plan_model(found, training_arguments(found, tmp_path), on_gpus=True)
    assert (model.precision.weights, model.autocast) == (torch.bfloat16, torch.bfloat16)
    assert {p.dtype for p in model.policy.parameters()} == {torch.bfloat16, torch.float32}  # adapters are float32


def test_models_that_compute_in_one_type(recipe, model_dir, tmp_path):
    found = recipe("model.lora={r: 2}", f"model.reference={model_dir}")
    model = plan_model(found, training_arguments(found, tmp_path), on_gpus=True)
    cast = computing_in(model, torch.bfloat16)
    assert {p.dtype for p in (*cast.policy.parameters(), *cast.other.parameters())} == {torch.bfloat16}
    assert cast.autocast is None
    assert [p.requires_grad for p in cast.policy.parameters()] == [p.requires_grad for p in model.policy.parameters()]
    assert any(p.dtype == torch.float32 for p in model.policy.parameters())  # its own are left alone
