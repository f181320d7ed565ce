"""``align precompute``: the reference of a recipe on disk, before any training."""

import json

import pytest

from align.cli.main import main


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, eval_fraction: 0.2, max_length: 200}}\n"
        f"objective: dpo\ntrainer: {{use_cpu: true, max_steps: 2}}\noutput: {{dir: {tmp_path / 'run'}}}\n"
    )
    return path


def done(recipe, capsys, *words):
    capsys.readouterr()
    assert main(["precompute", str(recipe), "--json", *words]) == 0
    return json.loads(capsys.readouterr().out)


def test_once_for_all_runs(recipe, capsys, tmp_path):
    first = done(recipe, capsys)
    assert sum(first["rows"].values()) == 24
    assert first["computed"] == first["kept"] == 48
    again = done(recipe, capsys, "trainer.learning_rate=1e-4", "objective=ipo", "trainer.seed=3")
    assert (again["computed"], again["folder"]) == (0, first["folder"])
    assert not (tmp_path / "run").exists()
    assert main(["train", str(recipe)]) == 0  # two steps see few of the rows: what is there is used all the same
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["reference"].endswith("its log-probabilities are kept")
    assert "nothing to compute" in capsys.readouterr().out


def test_what_it_says(recipe, capsys):
    assert main(["precompute", str(recipe)]) == 0
    out = capsys.readouterr().out
    assert "reference: base: a frozen copy of the policy; its log-probabilities are kept" in out
    assert "48 sequences computed, 48 are kept of this reference" in out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["objective=simpo"], "objective 'simpo' compares with no reference: there is nothing to keep"),
        (["objective=wpo"], "objective 'wpo' reads the reference's log-probabilities of whole distributions"),
    ],
)
def test_what_cannot_be_kept(recipe, capsys, words, message):
    assert main(["precompute", str(recipe), *words]) == 2
    assert message in capsys.readouterr().err
