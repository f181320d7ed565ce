"""Every recipe that comes with align: listed, shown, copied, loaded, and dry-run."""

import subprocess
from pathlib import Path

import pytest

from align.cli.main import main
from align.cli.recipes import recipes_root, shipped
from align.recipe.load import load_recipe
from align.trainers.check import check
from align.trainers.run import run_recipe
from align.wings.method import WINGS

ROOT = Path(__file__).parents[2]
RECIPES = sorted((ROOT / "recipes").rglob("*.yaml"))
PREFERENCE = [path for path in RECIPES if path.parent.name not in WINGS]
"""Those of methods are loaded and run by tests/wings/test_contract.py."""

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


@pytest.mark.parametrize("path", PREFERENCE, ids=lambda path: path.stem)
def test_every_recipe_loads_and_is_in_order(path, hh_or_pairs, model_dir):
    recipe = load_recipe(path, [*data_overrides(path, hh_or_pairs), *model_overrides(path, model_dir)])
    assert any(line.startswith("objective:") for line in check(recipe))


@pytest.mark.parametrize("path", PREFERENCE, ids=lambda path: path.stem)
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


def model_overrides(path, folder):
    """A small model in the place of one that is only on the hub."""
    return [] if "path: package:" in path.read_text() else [f"model.path={folder}"]


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


THEIRS = (
    "base_model: org/tiny\nrl: dpo\ndatasets: [{path: a.jsonl}]\nlearning_rate: 1.0e-4\nload_in_4bit: true\ntypo: 1\n"
)


def test_convert_prints_a_recipe_that_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text(THEIRS)
    assert main(["recipes", "convert", "theirs.yaml"]) == 0
    printed = capsys.readouterr()
    Path("ours.yaml").write_text(printed.out)
    assert load_recipe("ours.yaml").trainer["learning_rate"] == 1e-4
    said = printed.err.splitlines()
    assert said[0].startswith("a recipe of Axolotl; keys left out that change nothing: ")
    assert said[1] == "to decide, each a comment DECIDE of the recipe: 2"
    assert [line.split(":")[0] for line in said[2:]] == ["  load_in_4bit (line 5)", "  typo (line 6)"]


def test_convert_writes_and_never_overwrites(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    Path("theirs.yaml").write_text(THEIRS)
    words = ["recipes", "convert", "theirs.yaml", "--from", "axolotl", "--to", "new/ours.yaml"]
    assert main(words) == 0
    written = Path("new/ours.yaml").read_text()
    assert "written to new/ours.yaml" in capsys.readouterr().err
    assert load_recipe("new/ours.yaml").data.max_length == 512  # Axolotl's default
    Path("new/ours.yaml").write_text("mine\n")
    assert main(words) == 2
    assert "new/ours.yaml exists; choose another name" in capsys.readouterr().err
    assert Path("new/ours.yaml").read_text() == "mine\n"
    assert written.startswith("# Brought over from theirs.yaml, a recipe of Axolotl")


def test_what_has_no_counterpart_exits_with_2(tmp_path, capsys):
    file = tmp_path / "theirs.yaml"
    file.write_text(THEIRS.replace("rl: dpo", "rl: grpo"))
    assert main(["recipes", "convert", str(file), "--to", str(tmp_path / "ours.yaml")]) == 2
    assert f"error: {file}:2: rl: 'grpo' has no counterpart here" in capsys.readouterr().err
    assert not (tmp_path / "ours.yaml").exists()


def test_a_file_that_names_no_trainer(tmp_path, capsys):
    file = tmp_path / "theirs.yaml"
    file.write_text("model_name_or_path: org/tiny\ndataset_name: org/pairs\nbeta: 0.2\n")
    assert main(["recipes", "convert", str(file)]) == 0
    printed = capsys.readouterr()
    assert "name: dpo" in printed.out
    assert printed.err.splitlines()[1] == (
        "nothing in it says which trainer it is for: read as DPO; --method says otherwise (kto, cpo, orpo, simpo)"
    )
    assert main(["recipes", "convert", str(file), "--method", "orpo"]) == 0
    printed = capsys.readouterr()
    assert "lam: 0.2  # beta" in printed.out
    assert "--method" not in printed.err


@pytest.mark.parametrize("command", ["train", "validate"])
def test_train_and_validate_name_the_command_that_converts(tmp_path, capsys, command):
    file = tmp_path / "theirs.yaml"
    file.write_text(THEIRS)
    assert main([command, str(file)]) == 2
    said = capsys.readouterr().err
    assert f"this is a recipe of Axolotl, not of align. To bring it over:\n  align recipes convert {file} --to" in said


def test_projects_are_those_that_there_are():
    from align.cli.recipes import PROJECTS
    from align.recipe.foreign.dialects import DIALECTS

    assert set(PROJECTS) == DIALECTS.keys()


def test_methods_are_those_that_there_are():
    from align.cli.recipes import METHODS
    from align.recipe.foreign import methods

    assert list(METHODS) == list(methods.METHODS)
