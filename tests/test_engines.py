"""Every engine that ``accelerate_configs`` has, with two processes over gloo: trains alike, saves, continues."""

import json
import math
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from align.recipe.load import load_recipe
from align.trainers.run import run_recipe

ROOT = Path(__file__).parents[1]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": "", "DS_ACCELERATOR": "cpu"}
SHARDING = ("zero3", "fsdp2")


def launch(config, words, script="scripts/train.py", code=0):
    """Start a file of ours as users do; FSDP2 runs on gloo through a file that corrects accelerate's state."""
    if config == "fsdp2" and script == "scripts/train.py" and not code:
        script = "scripts/studies/fsdp_on_gloo.py"
    launcher = [str(Path(sys.executable).parent / "accelerate"), "launch", "--main_process_port", "0"]
    command = [*launcher, "--config_file", f"accelerate_configs/{config}.yaml", script, *map(str, words)]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=500, check=False)
    assert (done.returncode == 0) == (code == 0), done.stdout[-2000:] + done.stderr[-5000:]
    return done.stdout + done.stderr


def alone(words):
    """Run a recipe in this process."""
    recipe, *overrides = map(str, words)
    run_recipe(load_recipe(recipe, [*overrides, "trainer.use_cpu=true"]))


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file):
    path = tmp_path / "pairs.yaml"
    path.write_text(
        f"model: {{path: {model_dir}, dtype: float32}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n"
        "trainer: {max_steps: 4, logging_steps: 1, learning_rate: 1.0e-3, disable_tqdm: true, save_steps: 2,"
        " per_device_train_batch_size: 4}\n"
    )
    return path


def losses(run):
    entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {entry["step"]: entry["loss"] for entry in entries if "loss" in entry}


def cut_off(run, into):
    """Copy a run as if it had been killed after its second step."""
    into.mkdir()
    for name in ("checkpoint-2", "recipe.yaml", "inputs.json", "metrics.jsonl"):
        copy = shutil.copytree if (run / name).is_dir() else shutil.copy
        copy(run / name, into / name)
    return into


def test_the_same_mathematics_under_every_engine(tmp_path):
    """Four steps of the study of docs/results/trajectories.md, which has zero1 and zero2 too."""
    cases = ["dpo, lora", "kto", "aot", "dpo, a process without rows"]
    engines = ["one process, accumulation 4 x 2", "ddp, 2 x 4", "zero3, 2 x 4", "fsdp2, 2 x 4"]
    words = [w for case in cases for w in ("--case", case)] + [w for name in engines for w in ("--engine", name)]
    command = [sys.executable, "scripts/studies/trajectories.py", "--short", "--json", "--out", str(tmp_path), *words]
    done = subprocess.run(command, cwd=ROOT, env=ENVIRONMENT, capture_output=True, text=True, timeout=900, check=False)
    assert done.stdout, done.stderr[-5000:]
    rows = json.loads(done.stdout)
    assert len(rows) == len(engines) * len(cases) - 1  # aot is left out under accumulation
    kinds = {"ddp": "MULTI_CPU", "one": "NO", "fsdp2": "FSDP"}
    for row in rows:
        name = row["engine"].split(",")[0].split()[0]
        assert row["distributed_type"] == kinds.get(name, "DEEPSPEED")
        assert row["sharded"] == (1.0 if name in SHARDING else 0.0)
        frozen = None if "lora" in row["case"] else name in SHARDING
        assert row["reference_sharded"] is frozen
        assert row["max_rel_diff"] <= 1e-5, row


def test_preference_degrees_are_learned_alike(recipe, tmp_path):
    """Versions are drawn up by both processes; heads that stand outside the forward are synchronised."""
    words = [recipe, "spo={versions: {extractor: tfidf, degrees: 3}}", "trainer.save_strategy=no"]
    alone([*words, f"output.dir={tmp_path / 'one'}"])
    for config in ("ddp", "zero2"):
        out = tmp_path / config
        launch(config, [*words, f"output.dir={out}", "trainer.per_device_train_batch_size=2"])
        assert losses(out) == pytest.approx(losses(tmp_path / "one"), rel=1e-5), config
        assert not [name for name in load_file(out / "model" / "model.safetensors") if "degree_head" in name]


def test_negatives_are_held_against_samples_alike(recipe, tmp_path, monkeypatch):
    """Processes draw parts of the samples and read each other's; the same as one process draws."""
    words = [recipe, "d2o={samples: 3, max_new_tokens: 6, batch_size: 4}", "objective=d2o", "trainer.save_strategy=no"]
    alone([*words, f"output.dir={tmp_path / 'one'}"])
    monkeypatch.setitem(ENVIRONMENT, "ALIGN_CACHE", str(tmp_path / "cache"))  # so that nothing is there already
    launch("ddp", [*words, f"output.dir={tmp_path / 'ddp'}", "trainer.per_device_train_batch_size=2"])
    assert losses(tmp_path / "ddp") == pytest.approx(losses(tmp_path / "one"), rel=1e-5)


def test_entanglement_is_the_same_under_every_engine(recipe, tmp_path):
    """Of pairs that the step's own backward measures, and of those that take a pass of their own."""
    words = [recipe, "diagnostics={entanglement: {every: 1, pairs: null}}", "objective={name: ld_dpo, alpha: 0.3}"]
    words += ["trainer.max_steps=2", "trainer.save_strategy=no"]
    found = {}
    for engine in ("cpu", "zero2", *SHARDING):
        run = tmp_path / engine
        if engine == "cpu":
            alone([*words, f"output.dir={run}", "trainer.per_device_train_batch_size=8"])
        else:
            launch(engine, [*words, f"output.dir={run}"])
        entries = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        found[engine] = [entry for entry in entries if "loss" in entry]
    names = ("cosine", "chosen_norm", "rejected_norm", "d_chosen", "sgd_rejected", "extra_pass", "coverage")
    for engine, entries in found.items():
        for mine, plain in zip(entries, found["cpu"], strict=True):
            assert mine["entanglement/extra_pass"] > 0
            for name in (*names, *(() if engine == "zero3" else ("step_chosen", "step_rejected"))):
                key = f"entanglement/{name}"
                assert mine[key] == pytest.approx(plain[key], rel=1e-4, abs=1e-6), (engine, name)

    assert min(entry["entanglement/extra_pass"] for entry in found["cpu"]) < 1  # the other way is there too


def test_pairs_are_normalised_alike_under_every_engine(recipe, tmp_path):
    """Under ddp by the step's own forward, under ZeRO and FSDP2 by one of their own."""
    words = [recipe, "disentangle=normalise", "trainer.max_steps=2", "trainer.save_strategy=no"]
    found = {}
    for engine in ("ddp", *SHARDING):
        launch(engine, [*words, f"output.dir={tmp_path / engine}"])
        found[engine] = losses(tmp_path / engine)
    for engine in SHARDING:
        assert found[engine] == pytest.approx(found["ddp"], rel=1e-5)


@pytest.mark.parametrize("engine", [*SHARDING, "zero2"])
def test_a_whole_model_is_saved_and_a_run_continues(recipe, tmp_path, engine):
    whole, again = tmp_path / "whole", tmp_path / "again"
    launch(engine, [recipe, f"output.dir={whole}"])
    assert json.loads((whole / "summary.json").read_text())["engine"] == {"name": engine, "processes": 2}
    launch("zero1" if engine == "zero2" else engine, [recipe, f"output.dir={cut_off(whole, again)}"])
    assert losses(again) == pytest.approx(losses(whole), rel=1e-6)
    saved, resumed = (load_file(run / "model" / "model.safetensors") for run in (whole, again))
    for name, weight in saved.items():
        assert float((weight - resumed[name]).norm() / weight.norm()) < 1e-6, name
    from transformers import AutoModelForCausalLM

    _, found = AutoModelForCausalLM.from_pretrained(whole / "model", output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]
    assert trl_loss(whole / "model", tmp_path) == pytest.approx(math.log(2), abs=1e-6)


@pytest.mark.parametrize("engine", SHARDING)
def test_adapters_are_saved(recipe, tmp_path, model_dir, engine):
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    runs = {name: tmp_path / name for name in (engine, "ddp")}
    for name, run in runs.items():
        launch(name, [recipe, f"output.dir={run}", "model.lora={r: 4}", "trainer.max_steps=2"])
    ids = torch.arange(3, 19).reshape(2, 8)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    with torch.no_grad():
        plain = base(ids).logits
        one, other = (
            PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), run / "model")(ids).logits
            for run in runs.values()
        )
        itself = AutoPeftModelForCausalLM.from_pretrained(runs[engine] / "model")(ids).logits
    assert float((one - plain).abs().max()) > 1e-3
    torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one, itself)
    for checkpoint in ("checkpoint-2", "model"):
        assert (runs[engine] / checkpoint / "adapter_model.safetensors").is_file()


def trl_loss(folder, tmp_path):
    """Return the loss that TRL's DPOTrainer begins with on a saved model."""
    import datasets
    from trl import DPOConfig, DPOTrainer

    from tests.conftest import pair_rows

    settings = {"max_steps": 1, "logging_steps": 1, "report_to": "none", "use_cpu": True, "bf16": False}
    settings |= {"save_strategy": "no", "gradient_checkpointing": False, "disable_tqdm": True}
    data = datasets.Dataset.from_list(pair_rows(8))
    trainer = DPOTrainer(str(folder), args=DPOConfig(str(tmp_path / "trl"), **settings), train_dataset=data)
    trainer.train()
    return next(entry["loss"] for entry in trainer.state.log_history if "loss" in entry)


def test_two_processes_are_continued_by_one(recipe, tmp_path):
    whole, again, other = tmp_path / "whole", tmp_path / "again", tmp_path / "other"
    launch("ddp", [recipe, f"output.dir={whole}"])
    launch("cpu", [recipe, f"output.dir={cut_off(whole, again)}", "trainer.per_device_train_batch_size=8"])
    assert losses(again) == pytest.approx(losses(whole), rel=1e-5)
    said = launch("cpu", [recipe, f"output.dir={cut_off(whole, other)}"], code=2)
    assert "whose optimiser steps see 8 rows; under one process they would see 4" in said
    assert losses(other) == losses(whole)  # nothing of it was lost


def test_fsdp_that_would_be_left_out_is_refused(recipe, tmp_path):
    said = launch("fsdp2", [recipe, f"output.dir={tmp_path / 'run'}"], code=2)
    assert "the launcher asks for FSDP, and accelerate leaves it out on cpu" in said
    assert "accelerate_configs/ddp.yaml" in said
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("accumulate", [1, 3])
def test_metrics_are_brought_together_once_a_logging_step(recipe, tmp_path, accumulate):
    """However many metrics and batches; beside it the weight of the rows once a step, and what transformers logs."""
    counts = tmp_path / "counts.json"
    steps, every = 6, 3
    words = [f"trainer.max_steps={steps}", f"trainer.logging_steps={every}", "trainer.save_strategy=no"]
    words += [f"trainer.gradient_accumulation_steps={accumulate}", "trainer.per_device_train_batch_size=2"]
    launch("ddp", [counts, recipe, f"output.dir={tmp_path / 'run'}", *words], script="tests/collectives.py")
    logged = len(losses(tmp_path / "run"))
    assert logged == 1 + steps // every  # the first step as well
    found = json.loads(counts.read_text())
    assert found == {"read": logged, "_get_num_items_in_batch": steps, "nested_gather": logged, "store_flos": logged}
