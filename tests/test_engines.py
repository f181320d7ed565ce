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
ONE = 8
"""Rows of a step in one process; each of two has half of them."""


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
    run_recipe(load_recipe(recipe, overrides))


@pytest.fixture(autouse=True)
def on_cpu(monkeypatch):
    """As ``accelerate_configs/cpu.yaml`` has it."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file):
    path = tmp_path / "pairs.yaml"
    path.write_text(
        f"model: {{path: {model_dir}, dtype: float32}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n"
        "trainer: {max_steps: 4, logging_steps: 1, learning_rate: 1.0e-3, adam_epsilon: 1.0e-5, disable_tqdm: true,"
        " save_steps: 2, per_device_train_batch_size: 4}\n"
    )
    rows = [json.loads(line) for line in pairs_file.read_text().splitlines()]
    sides = ["chosen"] * 4 + ["rejected"] * 4
    completions = [
        {"prompt": row["prompt"], "completion": row[side], "label": side == "chosen"}
        for row, side in zip(rows, sides * 3, strict=True)
    ]
    (tmp_path / "completions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in completions))
    return path


def entries(run):
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]


def losses(run):
    return {entry["step"]: entry["loss"] for entry in entries(run) if "loss" in entry}


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
        assert row["agrees"], row
        assert max(row["loss"], row["logps"]) <= 1e-5, row


DEGREES = ["spo={versions: {extractor: tfidf, degrees: 3}}", "trainer.max_grad_norm=1000"]
"""Without clipping: DeepSpeed clips policy and heads together."""
FOLLOWED = "samples_reference_sync: {alpha: 0.5, every: 1}, online: {warmup: 3, every: 1}"
NEGATIVES = [f"d2o={{samples: 3, max_new_tokens: 6, batch_size: 4, {FOLLOWED}}}", "objective=d2o"]
MEASURED = ["diagnostics={entanglement: {every: 1, pairs: null}}", "objective={name: ld_dpo, alpha: 0.3}"]
WHOLE = "trainer.save_strategy=steps"
SHORT_ADAPTERS = ["model.lora={r: 4}", "trainer.max_steps=2"]
OF_COMPLETIONS = [
    "data.train={folder}/completions.jsonl",
    "objective=kto",
    "spo={versions: {extractor: tfidf, degrees: 3, sides: chosen}}",
    *DEGREES[1:],
    "trainer.train_sampling_strategy=sequential",
]
"""Of each eight rows the first four are desirable, and the first process has them."""
CASES = {
    "whole": [WHOLE],
    "adapters": [WHOLE, *SHORT_ADAPTERS],
    "degrees": [WHOLE, *DEGREES],
    "negatives": [WHOLE, *NEGATIVES],
    "degrees, adapters": [*DEGREES, *SHORT_ADAPTERS],
    "negatives, adapters": [*NEGATIVES, *SHORT_ADAPTERS],
    "degrees of one side, which a process lacks": [*OF_COMPLETIONS, "trainer.max_steps=2"],
    "entanglement": [*MEASURED, "trainer.max_steps=2", "speed=off"],
    "entanglement, packed": [*MEASURED, "trainer.max_steps=2"],
    "normalise": ["disentangle=normalise", "trainer.max_steps=2"],
}
"""What is trained in one launch under an engine, and in one process with as many rows a step."""
OF_TWO_FORWARDS = ("whole", *(case for case in CASES if "degrees" in case or "negatives" in case))
OF_ENGINE = {
    "ddp": (*OF_TWO_FORWARDS, "entanglement", "entanglement, packed", "normalise"),
    "zero2": (*OF_TWO_FORWARDS, "entanglement"),
    **dict.fromkeys(SHARDING, ("whole", "adapters", "entanglement", "entanglement, packed", "normalise")),
}
AS_ONE = {"negatives": 3}
"""Last step that is the same as in one process: behind it each process draws samples of its own."""
CONTINUED_BY = {"ddp": "cpu", "zero2": "zero1", "zero3": "zero3", "fsdp2": "fsdp2"}
ALSO_CONTINUED = {"ddp": ("degrees",), "zero2": ("degrees", "negatives")}
"""Heads, and copies that follow the policy, are kept beside what the engine keeps."""


def words_of(case, recipe, out, rows):
    """Return the words of a case; samples and versions that one process has made are not found by others."""
    own = [word.replace("{folder}", str(recipe.parent)) for word in CASES[case]]
    return [str(recipe), "trainer.save_strategy=no", *own, f"output.dir={out}", rows]


@pytest.mark.parametrize("engine", OF_ENGINE)
def test_an_engine_trains_as_one_process_saves_and_is_continued(recipe, tmp_path, model_dir, engine, monkeypatch):
    cases, runs = OF_ENGINE[engine], {}
    for case in cases:
        one = tmp_path / f"{case}-one"
        alone(words_of(case, recipe, one, f"trainer.per_device_train_batch_size={ONE}"))
        runs[case] = (tmp_path / case, one)
    monkeypatch.setitem(ENVIRONMENT, "ALIGN_CACHE", str(tmp_path / "cache"))  # so that nothing is there already
    asked = [words_of(c, recipe, runs[c][0], f"trainer.per_device_train_batch_size={ONE // 2}") for c in cases]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    launch(engine, [tmp_path / "asked.json"], script="tests/launched.py")
    for case, (out, one) in runs.items():
        assert json.loads((out / "summary.json").read_text())["engine"] == {"name": engine, "processes": 2}
        same = {step: loss for step, loss in losses(one).items() if step <= AS_ONE.get(case, math.inf)}
        assert {step: losses(out)[step] for step in same} == pytest.approx(same, rel=1e-5), case
        CHECKS.get(case, lambda *_: None)(out, one, engine, model_dir)
    continued = {case: tmp_path / f"{case}-again" for case in ("whole", *ALSO_CONTINUED.get(engine, ()))}
    other = CONTINUED_BY[engine]
    size = f"trainer.per_device_train_batch_size={ONE if other == 'cpu' else ONE // 2}"
    asked = [words_of(case, recipe, cut_off(runs[case][0], again), size) for case, again in continued.items()]
    if other == "cpu":
        for words in asked:
            alone(words)
        elsewhere = cut_off(runs["whole"][0], tmp_path / "elsewhere")
        with pytest.raises(ValueError, match="whose optimiser steps see 8 rows; under one process they would see 4"):
            alone(words_of("whole", recipe, elsewhere, f"trainer.per_device_train_batch_size={ONE // 2}"))
        assert losses(elsewhere) == losses(runs["whole"][0])  # nothing of it was lost
    else:
        (tmp_path / "again.json").write_text(json.dumps(asked))
        launch(other, [tmp_path / "again.json"], script="tests/launched.py")
    tolerance, of_weights = (1e-5, 1e-4) if other == "cpu" else (1e-6, 1e-6)  # one process adds up in another order
    for case, again in continued.items():
        assert losses(again) == pytest.approx(losses(runs[case][0]), rel=tolerance), case
        saved, resumed = (load_file(run / "model" / "model.safetensors") for run in (runs[case][0], again))
        for name, weight in saved.items():
            assert float((weight - resumed[name]).norm() / weight.norm()) < of_weights, (case, name)
    assert trl_loss(runs["whole"][0] / "model", tmp_path) == pytest.approx(math.log(2), abs=1e-6)


def whole_is_saved(out, one, engine, model_dir):
    from transformers import AutoModelForCausalLM

    _, found = AutoModelForCausalLM.from_pretrained(out / "model", output_loading_info=True)
    assert not found["missing_keys"]
    assert not found["unexpected_keys"]


def heads_stay_behind(out, one, engine, model_dir):
    """Versions were drawn up by both processes; heads that stand outside the forward were synchronised."""
    assert not [name for name in load_file(out / "model" / "model.safetensors") if "degree_head" in name]


def entanglement_is_the_same(out, one, engine, model_dir):
    """Of pairs that the step's own backward measures, and of those that take a pass of their own."""
    measured, plain = ([entry for entry in entries(run) if "loss" in entry] for run in (out, one))
    names = ["cosine", "chosen_norm", "rejected_norm", "d_chosen", "sgd_rejected", "extra_pass", "coverage"]
    names += [] if engine == "zero3" else ["step_chosen", "step_rejected"]
    for mine, theirs in zip(measured, plain, strict=True):
        assert mine["entanglement/extra_pass"] > 0
        for name in names:
            key = f"entanglement/{name}"
            assert mine[key] == pytest.approx(theirs[key], rel=1e-4, abs=1e-6), name
    if "packed" not in str(out):
        assert min(entry["entanglement/extra_pass"] for entry in plain) < 1  # the other way is there too


def adapters_are_saved(out, one, engine, model_dir):
    from peft import AutoPeftModelForCausalLM, PeftModel
    from transformers import AutoModelForCausalLM

    ids = torch.arange(3, 19).reshape(2, 8)
    base = AutoModelForCausalLM.from_pretrained(model_dir)
    with torch.no_grad():
        plain = base(ids).logits
        mine, other = (
            PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(model_dir), run / "model")(ids).logits
            for run in (out, one)
        )
        itself = AutoPeftModelForCausalLM.from_pretrained(out / "model")(ids).logits
    assert float((mine - plain).abs().max()) > 1e-3
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(mine, itself)
    for checkpoint in ("checkpoint-2", "model"):
        assert (out / checkpoint / "adapter_model.safetensors").is_file()


CHECKS = {
    "whole": whole_is_saved,
    "degrees": heads_stay_behind,
    "entanglement": entanglement_is_the_same,
    "adapters": adapters_are_saved,
}


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


def test_fsdp_that_would_be_left_out_is_refused(recipe, tmp_path):
    said = launch("fsdp2", [recipe, f"output.dir={tmp_path / 'run'}"], code=2)
    assert "the launcher asks for FSDP, and accelerate leaves it out on cpu" in said
    assert "accelerate_configs/ddp.yaml" in said
    assert not (tmp_path / "run").exists()


def test_metrics_are_brought_together_once_a_logging_step(recipe, tmp_path):
    """However many metrics and batches; beside it the weight of the rows once a step, and what transformers logs."""
    steps, every, accumulations = 6, 3, (1, 3)
    same = [f"trainer.max_steps={steps}", f"trainer.logging_steps={every}", "trainer.per_device_train_batch_size=2"]
    same += ["trainer.save_strategy=no"]
    runs = [tmp_path / f"run-{accumulate}" for accumulate in accumulations]
    asked = [
        [str(recipe), *same, f"output.dir={run}", f"trainer.gradient_accumulation_steps={accumulate}"]
        for run, accumulate in zip(runs, accumulations, strict=True)
    ]
    (tmp_path / "asked.json").write_text(json.dumps(asked))
    launch("ddp", [tmp_path / "counts.json", tmp_path / "asked.json"], script="tests/collectives.py")
    for run, found in zip(runs, json.loads((tmp_path / "counts.json").read_text()), strict=True):
        logged = len(losses(run))
        assert logged == 1 + steps // every  # the first step as well
        assert found == {
            "read": logged,
            "_get_num_items_in_batch": steps,
            "nested_gather": logged,
            "store_flos": logged,
            "settle": 3,  # do padded rows, trees and tiles agree, and how many positions are they
            "decide": 1,  # would activations fit everywhere
        }
