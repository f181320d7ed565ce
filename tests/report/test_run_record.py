import pytest

from align.report.run_record import names_of, read_runs
from tests.report.conftest import RECIPE, evaluation, training, whole_summary


def test_a_whole_run(whole):
    (run,) = read_runs([whole])
    assert run.finished
    assert (run.name, run.path, run.steps) == ("whole", whole.resolve(), 300)
    assert run.recipe == RECIPE
    assert run.held_out["eval_accuracy"] == 0.7
    assert len(run.samples) == 9
    assert run.missing == []


def test_an_unfinished_run_says_what_is_missing(make_run):
    folder = make_run("cut", rows=[training(10), training(40)])
    (run,) = read_runs([folder])
    assert (run.finished, run.steps, run.held_out, run.generation) == (False, 40, {}, {})
    assert any("has not finished" in sentence for sentence in run.missing)
    assert any("no held-out set" in sentence for sentence in run.missing)


def test_the_last_evaluation_speaks_for_an_unfinished_run(make_run):
    rows = [evaluation(1, -60, -60), evaluation(9, -61, -70) | {"eval_accuracy": 0.9}, training(10)]
    (run,) = read_runs([make_run("cut", rows=rows)])
    assert run.held_out["eval_accuracy"] == 0.9


def test_a_run_before_its_first_line(make_run):
    folder = make_run("new", rows=None)
    assert any("Nothing was logged" in sentence for sentence in read_runs([folder])[0].missing)
    (folder / "metrics.jsonl").write_text('{"step": 1, "lo')
    assert any("Nothing was logged" in sentence for sentence in read_runs([folder])[0].missing)


def test_samples_that_are_in_markdown_only(make_run):
    folder = make_run(result=whole_summary())
    (folder / "samples.md").write_text("| a |")
    assert any("samples.md only" in sentence for sentence in read_runs([folder])[0].missing)


def test_a_recipe_without_generation_is_said(make_run):
    folder = make_run(result=whole_summary(generation={}))
    assert any("no evaluation.generation" in sentence for sentence in read_runs([folder])[0].missing)


def test_what_is_no_run(tmp_path):
    with pytest.raises(ValueError, match=r"there is no run folder .*absent"):
        read_runs([tmp_path / "absent"])
    with pytest.raises(ValueError, match=r"is no run folder: .*name the folder that"):
        read_runs([tmp_path])


@pytest.mark.parametrize(
    ("file", "content", "words"),
    [
        ("metrics.jsonl", '{"step": 1}\nnonsense\n{"step": 2}\n', "line 2 of .*metrics.jsonl is no JSON"),
        ("summary.json", '{"steps": ', "summary.json is no JSON"),
        ("summary.json", "[1]", "summary.json is no JSON object"),
        ("recipe.yaml", "a: [1", "recipe.yaml:1"),
        ("samples.jsonl", "{}\n", "line 1 of .*samples.jsonl: 'prompt'"),
    ],
)
def test_broken_files_are_named(whole, file, content, words):
    (whole / file).write_text(content)
    with pytest.raises(ValueError, match=words):
        read_runs([whole])


def test_bytes_that_are_no_text(whole):
    (whole / "recipe.yaml").write_bytes(b"\xff\xfe")
    with pytest.raises(ValueError, match=r"recipe.yaml is no UTF-8"):
        read_runs([whole])


def test_a_run_named_twice(whole):
    with pytest.raises(ValueError, match="named twice"):
        read_runs([whole, whole / ".." / "whole"])


def test_folders_of_one_name_stay_apart(make_run):
    runs = read_runs([make_run("a/dpo"), make_run("b/dpo"), make_run("other")])
    assert [run.name for run in runs] == ["a/dpo", "b/dpo", "other"]


def test_a_name_is_as_long_as_it_must_be(tmp_path):
    paths = [tmp_path / "x" / "run", tmp_path / "y" / "x" / "run"]
    names = names_of(paths)
    assert names[0] != names[1]
    assert names[1] == "y/x/run"
    assert names_of([tmp_path / "bell\x07"]) == ["bell\ufffd"]
