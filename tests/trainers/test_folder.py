"""Which folder a run goes to, and that nothing in one is lost."""

import json

import pytest

from align.recipe.load import load_recipe
from align.trainers.folder import RunFolder


@pytest.fixture
def recipe_file(tmp_path, pairs_file, model_dir):
    path = tmp_path / "my.yaml"
    path.write_text(f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n")
    return path


def claim(recipe_file, *overrides):
    return RunFolder.claim(load_recipe(recipe_file, overrides), "my")


def test_recipes_that_differ_get_folders_that_differ(recipe_file, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first, again, other = claim(recipe_file), claim(recipe_file), claim(recipe_file, "objective.beta=0.2")
    assert first.path == again.path != other.path
    assert first.path.parent == tmp_path / "runs"
    assert first.path.name.startswith("my-")
    assert not first.path.exists()


def test_a_folder_with_another_recipes_run_is_refused(recipe_file, tmp_path):
    there = f"output.dir={tmp_path / 'run'}"
    claim(recipe_file, there).write_recipe(load_recipe(recipe_file, [there]))
    assert claim(recipe_file, there, "objective.beta=0.2").path == tmp_path / "run"  # nothing has run there yet
    (tmp_path / "run" / "metrics.jsonl").touch()
    assert claim(recipe_file, there).path == tmp_path / "run"
    with pytest.raises(ValueError, match=r"another recipe \(here: beta: 0.2\)"):
        claim(recipe_file, there, "objective.beta=0.2")


def test_a_folder_with_other_files_is_refused(recipe_file, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.tex").touch()
    with pytest.raises(ValueError, match="holds files that are no run"):
        claim(recipe_file, f"output.dir={tmp_path / 'thesis'}")


def test_the_written_recipe_loads_as_the_same_recipe(recipe_file, tmp_path):
    recipe = load_recipe(recipe_file, [f"output.dir={tmp_path / 'run'}"])
    folder = RunFolder.claim(recipe, "my")
    folder.write_recipe(recipe)
    assert load_recipe(folder.path / "recipe.yaml") == recipe


def test_torn_checkpoints_are_passed_over(tmp_path):
    for step, state in ((9, '{"global_step": 9}'), (10, '{"glob'), (11, None)):
        checkpoint = tmp_path / f"checkpoint-{step}"
        checkpoint.mkdir()
        if state is not None:
            (checkpoint / "trainer_state.json").write_text(state)
    assert RunFolder(tmp_path).last_checkpoint().name == "checkpoint-9"


def test_two_commands_do_not_share_a_folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    with folder.held(), pytest.raises(ValueError, match="another command is training"), folder.held():
        pass
    with folder.held():
        pass


def test_summary_marks_the_end(tmp_path):
    folder = RunFolder(tmp_path)
    assert folder.summary() is None
    folder.write_summary({"steps": 3})
    assert folder.summary() == {"steps": 3}
    assert json.loads((tmp_path / "summary.json").read_text()) == {"steps": 3}
