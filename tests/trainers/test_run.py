"""A recipe from start to end on a small model: every file it promises, and going on after being killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import load_file

from align.recipe.load import load_recipe
from align.trainers.run import run_recipe

RECIPE = """
model:
  path: {model}
  dtype: float32
data:
  train: {pairs}
  eval_fraction: 0.3
objective: {{name: dpo, beta: 0.5}}
trainer:
  max_steps: {steps}
  per_device_train_batch_size: 4
  learning_rate: 1.0e-3
  logging_steps: 1
  eval_strategy: steps
  eval_steps: 4
  save_steps: 2
  use_cpu: true
  disable_tqdm: true
  seed: 1
output: {{dir: {out}}}
"""


def write_recipe(folder, model_dir, pairs_file, *, steps=6, name="run"):
    path = folder / f"{name}.yaml"
    path.write_text(RECIPE.format(model=model_dir, pairs=pairs_file, steps=steps, out=folder / name))
    return path


@pytest.fixture
def recipe_file(tmp_path, model_dir, pairs_file):
    return write_recipe(tmp_path, model_dir, pairs_file)


def test_a_run_leaves_what_it_promises(recipe_file, tmp_path):
    summary = run_recipe(load_recipe(recipe_file))
    run = tmp_path / "run"
    for name in ("recipe.yaml", "metrics.jsonl", "summary.json", "curves.png", "curves.svg", "model/config.json"):
        assert (run / name).is_file(), name
    assert summary == json.loads((run / "summary.json").read_text())
    assert summary["start_margin"] == pytest.approx(0, abs=1e-4)  # rounding: the reference is kept
    assert summary["steps"] == 6
    held_out = summary["held_out"]
    assert held_out["eval_accuracy_low"] <= held_out["eval_accuracy"] <= held_out["eval_accuracy_high"]
    assert {"eval_accuracy_longer_wins", "eval_accuracy_length_matched_pairs"} <= held_out.keys()
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [e["step"] for e in entries if "loss" in e] == [1, 2, 3, 4, 5, 6]
    assert [e["step"] for e in entries if "eval_loss" in e] == [4, 6]  # as asked, and the model that is kept


def test_an_evaluation_at_the_last_step_is_not_done_again(recipe_file, tmp_path):
    summary = run_recipe(load_recipe(recipe_file, ["trainer.eval_steps=3"]))
    entries = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    evaluations = [e for e in entries if "eval_loss" in e]
    assert [e["step"] for e in evaluations] == [3, 6]
    assert summary["held_out"]["eval_loss"] == evaluations[-1]["eval_loss"]


def test_the_model_folder_loads_in_plain_transformers(recipe_file, tmp_path):
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run_recipe(load_recipe(recipe_file))
    model = AutoModelForCausalLM.from_pretrained(tmp_path / "run" / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "run" / "model")
    ids = tokenizer("the day", return_tensors="pt").input_ids
    assert torch.isfinite(model(ids).logits).all()


def test_a_finished_run_is_not_run_again(recipe_file, tmp_path, capsys):
    first = run_recipe(load_recipe(recipe_file))
    stamp = (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns
    assert run_recipe(load_recipe(recipe_file)) == first
    assert "finished run; nothing to do" in capsys.readouterr().out
    assert (tmp_path / "run" / "model" / "model.safetensors").stat().st_mtime_ns == stamp


def test_the_resolved_recipe_runs_again_to_the_same_weights(recipe_file, tmp_path):
    run_recipe(load_recipe(recipe_file))
    again = load_recipe(tmp_path / "run" / "recipe.yaml", [f"output.dir={tmp_path / 'again'}"])
    run_recipe(again)
    assert_same_weights(tmp_path / "run", tmp_path / "again")


def test_a_killed_run_goes_on_to_the_very_same_weights(tmp_path, model_dir, pairs_file):
    """Killed without warning after a checkpoint, the same command ends where the uninterrupted run ends."""
    whole = write_recipe(tmp_path, model_dir, pairs_file, steps=12, name="whole")
    run_recipe(load_recipe(whole))
    cut = write_recipe(tmp_path, model_dir, pairs_file, steps=12, name="cut")
    kill_after_first_checkpoint(cut, tmp_path / "cut")
    assert not (tmp_path / "cut" / "summary.json").exists()
    assert (tmp_path / "cut" / "checkpoint-2").is_dir()
    run_recipe(load_recipe(cut))
    assert_same_weights(tmp_path / "whole", tmp_path / "cut")
    histories = [metrics(tmp_path / name) for name in ("whole", "cut")]
    assert histories[0].keys() == histories[1].keys() == set(range(1, 13))
    assert histories[0] == pytest.approx(histories[1], rel=1e-9)


SLOW_TRAINING = f"""
import sys, time, torch
from transformers import TrainerCallback
import align.trainers.pair as pair
from align.cli.main import main

torch.set_num_threads({torch.get_num_threads()})  # else sums are added up in another order

class Slow(TrainerCallback):
    def on_step_end(self, *args, **kwargs):
        time.sleep(0.4)

made = pair.PairTrainer.__init__
def init(self, *args, **options):
    made(self, *args, **options)
    self.add_callback(Slow())
pair.PairTrainer.__init__ = init
sys.exit(main(["train", sys.argv[1]]))
"""


def kill_after_first_checkpoint(recipe, folder):
    process = subprocess.Popen(
        [sys.executable, "-c", SLOW_TRAINING, str(recipe)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env=dict(os.environ),
    )
    deadline = time.time() + 120
    while time.time() < deadline and process.poll() is None:
        if (folder / "checkpoint-2" / "trainer_state.json").is_file():
            time.sleep(0.6)
            break
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL


def metrics(run):
    entries = (json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines())
    return {e["step"]: e["loss"] for e in entries if "loss" in e}


def assert_same_weights(first, second):
    ours, theirs = (load_file(run / "model" / "model.safetensors") for run in (first, second))
    assert ours.keys() == theirs.keys()
    for name in ours:
        assert torch.equal(ours[name], theirs[name]), name


def test_pairs_made_by_the_model_and_before_and_after(tmp_path, model_dir):
    """The quickstart's shape, with a scorer of one's own and adapters."""
    scorer = tmp_path / "vowels.py"
    scorer.write_text("def score(prompts, completions):\n    return [float(text.count('a')) for text in completions]\n")
    prompts = tmp_path / "prompts.txt"
    prompts.write_text("".join(f"the day {i}\n" for i in range(40)))
    path = tmp_path / "synth.yaml"
    path.write_text(
        f"""
model: {{path: {model_dir}, dtype: float32, lora: {{r: 4}}}}
data:
  train: {{synth: {{prompts: {prompts}, scorer: "{scorer}:score", samples: 3, max_new_tokens: 6, min_gap: 0.5}}}}
objective: dpo
trainer: {{max_steps: 2, per_device_train_batch_size: 4, use_cpu: true, disable_tqdm: true, save_strategy: "no"}}
evaluation:
  generation: {{prompts: {prompts}, scorer: "{scorer}:score", max_new_tokens: 6}}
output: {{dir: {tmp_path / "synth"}}}
"""
    )
    summary = run_recipe(load_recipe(path))
    run = tmp_path / "synth"
    pairs = [json.loads(line) for line in (run / "pairs" / "training-0.jsonl").read_text().splitlines()]
    assert all(pair["chosen_score"] - pair["rejected_score"] >= 0.5 for pair in pairs)
    assert all(pair["chosen"][0]["content"].count("a") == pair["chosen_score"] for pair in pairs)
    generation = summary["generation"]
    assert generation["reward"]["difference"]["value"] == pytest.approx(
        generation["reward"]["aligned"]["value"] - generation["reward"]["base"]["value"]
    )
    assert {"win_rate", "kl", "distinct_2", "repetition", "length_tokens", "ended"} <= generation.keys()
    assert all((run / name).is_file() for name in ("reward.png", "reward.svg", "samples.jsonl"))
    assert (run / "samples.md").is_file()
    assert (run / "model" / "adapter_model.safetensors").is_file()
    adapter = json.loads((run / "model" / "adapter_config.json").read_text())
    assert adapter["base_model_name_or_path"] == str(model_dir)


def test_a_reference_of_its_own_and_a_users_loss(tmp_path, model_dir, pairs_file):
    (tmp_path / "my_loss.py").write_text(
        "from torch.nn import functional as F\n\n\n"
        "def my_loss(policy, reference, *, beta=0.1):\n"
        "    margin = (policy.chosen - reference.chosen) - (policy.rejected - reference.rejected)\n"
        "    return F.softplus(-beta * margin)\n"
    )
    path = write_recipe(tmp_path, model_dir, pairs_file, steps=3)
    overrides = [
        f"objective={{file: {tmp_path / 'my_loss.py'}, name: my_loss, beta: 0.5}}",
        f"model.reference={model_dir}",
    ]
    mine = run_recipe(load_recipe(path, [*overrides, f"output.dir={tmp_path / 'mine'}"]))
    run_recipe(load_recipe(path, [f"model.reference={model_dir}", f"output.dir={tmp_path / 'dpo'}"]))
    assert mine["reference"].startswith("a model of its own")
    assert mine["start_margin"] is None
    assert metrics(tmp_path / "mine") == pytest.approx(metrics(tmp_path / "dpo"), rel=1e-5)


def test_degrees_beside_an_objective_of_single_completions(recipe_file, tmp_path, model_dir):
    """KTO, which pairs cannot train; the heads stay out of the model."""
    words = ["objective=kto", "spo={versions: {extractor: tfidf, degrees: 3}}", "trainer.max_steps=4"]
    summary = run_recipe(load_recipe(recipe_file, words))
    run = tmp_path / "run"
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    last = [entry for entry in entries if "eval_loss" in entry][-1]
    assert {"eval_auc", "eval_spo/accuracy/chosen", "eval_spo/rank_correlation/rejected"} <= last.keys()
    assert (run / "checkpoint-4" / "degree_head.safetensors").is_file()
    assert not [name for name in load_file(run / "model" / "model.safetensors") if "degree" in name]
    assert summary["objective"] == "kto"


def test_other_models_have_the_policys_tokens(recipe_file, tmp_path, model_dir):
    """A reference, of samples too, that knows other tokens is told by its key, not by an index out of range."""
    from transformers import AutoTokenizer

    other = tmp_path / "other"
    shutil.copytree(model_dir, other)
    tokenizer = AutoTokenizer.from_pretrained(other)
    tokenizer.add_tokens(["quite", "new"])
    tokenizer.save_pretrained(other)
    for words, key in (
        ([f"model.path={other}", f"model.reference={model_dir}"], "model.reference"),
        ([f"model.path={other}", "objective=d2o", f"d2o={{samples_reference: {model_dir}}}"], "d2o.samples_reference"),
    ):
        with pytest.raises(ValueError, match=rf"{key} .* has another vocabulary than model.path: 2 of"):
            run_recipe(load_recipe(recipe_file, [*words, f"output.dir={tmp_path / key}"]))


def test_a_run_with_a_changed_file_is_refused(tmp_path, model_dir, pairs_file):
    loss = tmp_path / "my_loss.py"
    loss.write_text("def my_loss(policy):\n    return -policy.chosen\n")
    path = write_recipe(tmp_path, model_dir, pairs_file, steps=2)
    words = [f"objective={{file: {loss}, name: my_loss}}"]
    run_recipe(load_recipe(path, words))
    loss.write_text("def my_loss(policy):\n    return policy.rejected\n")
    with pytest.raises(ValueError, match=r"my_loss.py has changed since the run in .*name another output.dir"):
        run_recipe(load_recipe(path, words))


def test_a_start_that_failed_does_not_keep_the_folder(tmp_path, model_dir, pairs_file):
    bad = tmp_path / "bad.jsonl"
    good = pairs_file.read_text()
    bad.write_text(good + '{"chosen": "x"}\n')
    path = write_recipe(tmp_path, model_dir, bad, steps=2)
    with pytest.raises(ValueError, match=r"bad.jsonl:25"):
        run_recipe(load_recipe(path))
    bad.write_text(good)
    assert run_recipe(load_recipe(path))["steps"] == 2


def test_a_run_that_learned_nothing_does_not_finish(tmp_path, model_dir, pairs_file):
    path = write_recipe(tmp_path, model_dir, pairs_file)
    few = ["trainer.dataloader_drop_last=true", "trainer.per_device_train_batch_size=64", "trainer.max_steps=-1"]
    with pytest.raises(ValueError, match="fewer pairs than one batch"):
        run_recipe(load_recipe(path, few))
    loss = tmp_path / "nan.py"
    loss.write_text("def nan(policy):\n    return policy.chosen * float('nan')\n")
    words = [f"objective={{file: {loss}, name: nan}}", f"output.dir={tmp_path / 'nan'}"]
    words += ["data.eval_fraction=0", "trainer.eval_strategy=no"]
    with pytest.raises(ValueError, match="the loss became nan"):
        run_recipe(load_recipe(path, words))
    assert not (tmp_path / "nan" / "summary.json").exists()


def test_what_generation_needs_is_looked_for_before_training(tmp_path, model_dir, pairs_file):
    path = write_recipe(tmp_path, model_dir, pairs_file)
    with pytest.raises(ValueError, match="no scorer 'absent'"):
        run_recipe(load_recipe(path, ["evaluation.generation={scorer: absent}"]))
    assert not (tmp_path / "run").exists()


def test_bad_rows_are_skipped_beside_the_run(recipe_file, tmp_path, pairs_file):
    bad = '{"prompt": "Hi", "chosen": "a", "rejected": "a"}\n'
    pairs_file.write_text(bad + pairs_file.read_text() + "{broken\n")
    with pytest.raises(ValueError, match=r"pairs\.jsonl:1: chosen and rejected are the same.*on_bad_row: skip"):
        run_recipe(load_recipe(recipe_file))
    summary = run_recipe(load_recipe(recipe_file, ["data.on_bad_row=skip"]))
    assert "2 bad rows skipped (1 same, 1 not_json)" in summary["preparation"]["train"]
    skipped = [json.loads(line) for line in (tmp_path / "run" / "skipped-training.jsonl").read_text().splitlines()]
    assert [(row["where"], row["kind"]) for row in skipped] == [
        ("pairs.jsonl:1", "same"),
        ("pairs.jsonl:26", "not_json"),
    ]
    assert skipped[0]["row"] == json.loads(bad)
