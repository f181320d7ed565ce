"""``align validate``: what is in order is said, what is not is an error."""

import pytest

from align.cli.main import main


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file):
    path = tmp_path / "r.yaml"
    path.write_text(f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n")
    return path


def test_it_says_what_it_found(recipe, capsys):
    assert main(["validate", str(recipe)]) == 0
    out = capsys.readouterr().out
    assert "objective: dpo, needs a reference" in out
    assert "reference: base" in out
    assert "data.train: pairs.jsonl, 24 rows" in out
    assert out.endswith("r: the recipe is valid\n")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("data.train=absent.jsonl", "absent.jsonl"),
        ("model.path=package:absent-weights", "pip install --no-deps absent-weights"),
        ("model.reference=none", "model.reference 'none' cannot work"),
        ("model.reference=adapter_off", "needs adapters"),
        ("evaluation.generation.prompts=absent", "no list of prompts"),
        ("evaluation.generation.scorer=absent", "no scorer 'absent'"),
    ],
)
def test_what_cannot_work_is_refused(recipe, override, message, capsys):
    assert main(["validate", str(recipe), override]) == 2
    assert message in capsys.readouterr().err


def test_a_reference_nothing_would_use_is_refused(recipe, tmp_path, capsys):
    (tmp_path / "loss.py").write_text("def mine(policy):\n    return -policy.chosen\n")
    words = [f"objective={{file: {tmp_path / 'loss.py'}, name: mine}}"]
    assert main(["validate", str(recipe), *words]) == 0
    assert "reference: none" in capsys.readouterr().out
    assert main(["validate", str(recipe), *words, "model.reference=base"]) == 2
    assert "would not be used" in capsys.readouterr().err
