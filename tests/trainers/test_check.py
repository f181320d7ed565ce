"""What a recipe names is looked for before anything heavy is loaded."""

import pytest

from align.recipe.load import load_recipe
from align.trainers.check import check


@pytest.fixture
def recipe_file(tmp_path, pairs_file, model_dir):
    path = tmp_path / "r.yaml"
    path.write_text(f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}}}\nobjective: dpo\n")
    return path


def test_a_line_for_each_part(recipe_file):
    lines = check(load_recipe(recipe_file, ["model.lora={r: 4}"]))
    assert [line.split(":")[0] for line in lines] == ["model", "objective", "reference", "data.train"]
    assert lines[2] == "reference: adapter_off"


def test_the_first_row_of_every_source_is_read(recipe_file, pairs_file):
    with pytest.raises(ValueError, match="no column 'good'"):
        check(load_recipe(recipe_file, [f"data.train={{path: {pairs_file}, columns: {{chosen: good}}}}"]))
    pairs_file.write_text('{"prompt": "a", "chosen": "b"}\n')
    with pytest.raises(ValueError, match=r"pairs.jsonl:1: there is no column 'rejected'"):
        check(load_recipe(recipe_file))


def test_a_folder_without_a_model(recipe_file, tmp_path):
    with pytest.raises(ValueError, match="holds no model"):
        check(load_recipe(recipe_file, [f"model.path={tmp_path}"]))
