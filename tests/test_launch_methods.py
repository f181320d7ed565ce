"""A method of the wings on two processes: negatives are gathered with gradient, so that two train as one."""

import json

import pytest

from align.wings.recipe import load_method_recipe
from align.wings.run import run_method
from tests.test_launch import entries, launch

TEXT = """
method: clip
data: {name: coloured_digits, train_per_class: 20}
settings: {width: 16, layers: 1, heads: 2, embedding: 8}
trainer:
  max_steps: 14
  learning_rate: 0.002
  logging_steps: 1
  save_steps: 7
  disable_tqdm: true
  use_cpu: true
  dataloader_drop_last: true
"""


def test_two_processes_train_as_one_with_the_whole_batch(tmp_path):
    recipe = tmp_path / "clip.yaml"
    recipe.write_text(TEXT)
    launch([str(recipe), f"output.dir={tmp_path / 'two'}", "trainer.per_device_train_batch_size=8"], "ddp")
    one = ["trainer.per_device_train_batch_size=16", f"output.dir={tmp_path / 'one'}"]
    alone = run_method(load_method_recipe(recipe, one))
    together = json.loads((tmp_path / "two" / "summary.json").read_text())
    for mine, theirs in zip(entries(tmp_path / "one"), entries(tmp_path / "two"), strict=True):
        if "loss" in mine:
            assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5)
            assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-4)
            assert theirs["matched"] == pytest.approx(mine["matched"], abs=1e-6)
    assert together["figures"] == pytest.approx(alone["figures"], abs=0.02)
    # half the batch's negatives is another objective: what the two agree on is not that they do not matter
    half = ["trainer.per_device_train_batch_size=8", f"output.dir={tmp_path / 'half'}"]
    run_method(load_method_recipe(recipe, half))
    first = [next(row["loss"] for row in entries(tmp_path / name) if "loss" in row) for name in ("one", "half")]
    assert abs(first[0] - first[1]) > 0.1
