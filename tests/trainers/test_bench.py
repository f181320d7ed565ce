"""A recipe for a few steps: times that add up, tokens by hand, and nothing left behind."""

import json
import re

import pytest

from align import load_recipe
from align.trainers.bench import PARTS, bench_recipe, say_figures
from tests.conftest import pair_rows


@pytest.fixture
def recipe(tmp_path, model_dir, pairs_file, monkeypatch):
    monkeypatch.setenv("ALIGN_CACHE", str(tmp_path / "cache"))
    path = tmp_path / "r.yaml"
    path.write_text(
        f"model: {{path: {model_dir}}}\ndata: {{train: {pairs_file}, eval_fraction: 0.2, max_length: 200}}\n"
        "objective: dpo\ntrainer: {use_cpu: true, per_device_train_batch_size: 4, gradient_accumulation_steps: 2, "
        "eval_strategy: steps, eval_steps: 2, eval_on_start: true}\n"
        f"output: {{dir: {tmp_path / 'run'}}}\n"
    )
    return path


def test_a_recipe_beside_itself_without_speed(recipe, tmp_path, capsys):
    found = bench_recipe(load_recipe(recipe), steps=2, compare=True)
    fast, plain = found["arms"].values()
    assert set(fast["shares"]) == {*PARTS, "everything else"}
    for arm in (fast, plain):
        assert sum(arm["shares"].values()) == pytest.approx(1, abs=0.02)
        assert len(arm["steps"]) == 2
        assert arm["shares"]["forward"] > 0
        assert arm["shares"]["backward"] > 0
        assert arm["shares"]["optimiser"] > 0
        assert arm["mfu"] > 0
    assert fast["tokens_a_step"]["of rows"] == plain["tokens_a_step"]["of rows"]  # the same rows
    assert fast["shared"] > 0.2
    assert (plain["shared"], fast["padding"]) == (0, 0)
    assert plain["padding"] > 0
    assert fast["shares"]["reference"] == 0  # kept before
    assert plain["shares"]["reference"] > 0
    assert not (tmp_path / "run").exists()
    say_figures(found)
    out = capsys.readouterr().out
    assert "where the time goes: " in out
    assert "speed makes it" in out


def test_alone(recipe):
    found = bench_recipe(load_recipe(recipe), steps=1, compare=False)
    assert list(found["arms"]) == ["as the recipe says"]
    assert found["times_as_fast"] is None


def test_what_a_killed_one_left_is_in_nobodys_way(recipe, tmp_path):
    from align.recipe.resolve import digest

    loaded = load_recipe(recipe)
    left = tmp_path / "cache" / "bench" / f"{digest(loaded)}-on"
    left.mkdir(parents=True)
    (left / "something").write_text("half")
    bench_recipe(loaded, steps=1, compare=False)
    assert not left.exists()


@pytest.mark.parametrize(("run", "kept"), [("num_train_epochs: 1", True), ("max_steps: 3", False)])
def test_the_reference_is_kept_where_the_whole_run_keeps_it(recipe, tmp_path, capsys, run, kept):
    """Not where the few steps that are timed see all rows, which they never do; and of their rows alone."""
    many = "".join(json.dumps(row) + "\n" for row in pair_rows(80))
    (tmp_path / "many.jsonl").write_text(many)
    text = recipe.read_text().replace("trainer: {", f"trainer: {{{run}, ")
    recipe.write_text(re.sub(r"train: [^,]*,", f"train: {tmp_path / 'many.jsonl'},", text))
    found = bench_recipe(load_recipe(recipe), steps=1, compare=False)
    (arm,) = found["arms"].values()
    say_figures(found)
    out = capsys.readouterr().out
    assert (arm["shares"]["reference"] == 0) is kept
    assert (arm["reference_once"] is not None) is kept
    assert ("once for all runs, the reference of 80 rows: about" in out) is kept
    assert ("48 sequences computed" in out) is kept  # three steps of eight pairs
