"""The quickstart itself, whole: minutes of work, run by ``make test-slow``."""

import pytest

from align.recipe.load import load_recipe
from align.trainers.run import run_recipe


@pytest.mark.slow
def test_the_reward_of_held_out_answers_rises(tmp_path):
    summary = run_recipe(load_recipe("recipes/quickstart.yaml", [f"output.dir={tmp_path / 'run'}"]))
    difference = summary["generation"]["reward"]["difference"]
    assert difference["value"] >= 0.25
    assert difference["low"] > 0.15
    assert summary["start_margin"] == 0.0
    assert summary["peak_memory_gib"] < 5.5
