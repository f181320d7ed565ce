"""Every recipe that comes with align: listed, shown, copied, loaded, and dry-run."""

import subprocess
from pathlib import Path

import pytest

from align.cli.main import main
from align.cli.recipes import recipes_root, shipped
from align.recipe.load import load_recipe
from align.trainers.check import check
from align.trainers.run import run_recipe

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))

TINY_SYNTH = [
    *("data.train.synth.limit=16", "data.train.synth.samples=2", "data.train.synth.max_new_tokens=4"),
    *("data.train.synth.min_gap=0", "data.train.synth.scorer={scorer}"),
]
TINY_GENERATION = [
    *("evaluation.generation.limit=4", "evaluation.generation.max_new_tokens=4"),
    "evaluation.generation.scorer={scorer}",
]


def test_every_recipe_file_is_tested():
    tracked = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "recipes/*.yaml"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
    assert len(RECIPES) == len(tracked) == len(shipped()) >= 2
    assert recipes_root() == ROOT / "recipes"


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_the_first_lines_say_command_time_and_result(path):
    comment = [line for line in path.read_text().splitlines() if line.startswith("#")]
    text = "\n".join(comment)
    assert f"align train recipes/{path.relative_to(ROOT / 'recipes')}" in text
    assert "Time:" in text
    assert "Result:" in text


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_in_order(path, hh_or_pairs):
    recipe = load_recipe(path, data_overrides(path, hh_or_pairs))
    assert any(line.startswith("objective:") for line in check(recipe))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_every_recipe_runs_one_step_on_a_small_model(path, model_dir, hh_or_pairs, tmp_path):
    scorer = tmp_path / "vowels.py"
    scorer.write_text("def score(prompts, completions):\n    return [float(len(text)) for text in completions]\n")
    text = path.read_text()
    overrides = [
        f"model.path={model_dir}",
        f"output.dir={tmp_path / 'run'}",
        *("trainer.max_steps=1", "trainer.save_strategy=no", "trainer.disable_tqdm=true", "trainer.use_cpu=true"),
        *data_overrides(path, hh_or_pairs),
        *((o.format(scorer=f"{scorer}:score") for o in TINY_SYNTH) if "synth:" in text else ()),
        *((o.format(scorer=f"{scorer}:score") for o in TINY_GENERATION) if "generation:" in text else ()),
    ]
    if "eval_fraction" in text:
        overrides.append("data.eval_fraction=0.5")
    summary = run_recipe(load_recipe(path, overrides))
    assert summary["steps"] == 1


def data_overrides(path, pairs):
    return [] if "synth:" in path.read_text() else [f"data.train={pairs}"]


@pytest.fixture
def hh_or_pairs(tmp_path):
    """A few transcripts in HH's form, made here, for recipes that name a file their user has."""
    import json

    file = tmp_path / "hh.jsonl"
    transcript = "\n\nHuman: the day {i}\n\nAssistant: {answer}"
    rows = [
        {
            key: transcript.format(i=i, answer=f"a {word} day {i}")
            for key, word in (("chosen", "good"), ("rejected", "bad"))
        }
        for i in range(12)
    ]
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return file


def test_ls_show_and_cp(tmp_path, capsys, monkeypatch):
    assert main(["recipes", "ls"]) == 0
    listed = capsys.readouterr().out
    assert all(name in listed for name in shipped())
    assert main(["recipes", "show", "quickstart"]) == 0
    assert capsys.readouterr().out == (ROOT / "recipes" / "quickstart.yaml").read_text()
    monkeypatch.chdir(tmp_path)
    assert main(["recipes", "cp", "quickstart"]) == 0
    assert (tmp_path / "quickstart.yaml").read_text() == (ROOT / "recipes" / "quickstart.yaml").read_text()
    assert main(["recipes", "cp", "quickstart"]) == 2
    assert "exists; choose another name" in capsys.readouterr().err


def test_a_recipe_may_be_named_without_its_file(capsys):
    assert main(["recipes", "show", "quickstrat"]) == 2
    assert "did you mean 'quickstart'?" in capsys.readouterr().err
