"""Methods of the wings on two processes, each with half the batch: they train as one with the whole.

Rows that are compared are gathered with their gradient, batch norm is over all rows, and draws are made for all.
"""

import json

import pytest
from safetensors.torch import load_file

from align.wings.recipe import build_method_recipe, resolved_yaml, with_overrides
from align.wings.registry import load, modules
from align.wings.run import run_method
from tests.test_launch import entries, launch
from tests.wings.test_contract import tree_of

STEPS = 3
SHARED = {
    "trainer.max_steps": STEPS,
    "trainer.logging_steps": 1,
    "trainer.save_strategy": "no",
    "trainer.eval_strategy": "no",
    "trainer.disable_tqdm": True,
    "trainer.use_cpu": True,
}
TRAINED = [name for name in modules() if "trainer.max_steps" in load(name).quick]


def case(name, batch, folder):
    """Return the recipe of a short run."""
    size = {"trainer.per_device_train_batch_size": batch, "output.dir": str(folder)}
    return with_overrides(tree_of(name), {**load(name).quick, **SHARED, **size, **FURTHER.get(name, {})})


FURTHER = {
    "clip": {"trainer.max_steps": 14, "trainer.learning_rate": 0.002},
    "metrix": {"settings.each": 4},
    "sla": {"trainer.max_steps": 13},  # past the end of an epoch of 11
    "sample4geo": {"trainer.max_steps": 6},  # two epochs: the second mines
}


@pytest.fixture(scope="module")
def together(tmp_path_factory):
    """Train every method in one launch of two processes."""
    folder = tmp_path_factory.mktemp("two")
    asked = []
    for name in TRAINED:
        recipe = folder / f"{name}.yaml"
        recipe.write_text(resolved_yaml(build_method_recipe(case(name, 8, folder / name))))
        asked.append([str(recipe)])
    (folder / "asked.json").write_text(json.dumps(asked))
    launch([str(folder / "asked.json")], "ddp", "tests/launched.py")
    return folder


@pytest.mark.parametrize("name", TRAINED)
def test_two_processes_train_as_one_with_the_whole_batch(name, together, tmp_path):
    alone = run_method(build_method_recipe(case(name, 16, tmp_path / "one")))
    logged = [(mine, theirs) for mine, theirs in zip(entries(tmp_path / "one"), entries(together / name), strict=True)]
    logged = [pair for pair in logged if "loss" in pair[0]]
    assert len(logged) >= STEPS
    for mine, theirs in logged:
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-5, abs=1e-6)
        assert theirs["grad_norm"] == pytest.approx(mine["grad_norm"], rel=1e-4, abs=1e-6)
    mine, theirs = (load_file(folder / "model" / "model.safetensors") for folder in (tmp_path / "one", together / name))
    # of all weights together: a bias whose gradient is 0 in theory, as that of attention's keys, is moved by rounding
    apart = sum(float((mine[key].double() - theirs[key].double()).square().sum()) for key in mine)
    assert apart < 1e-6 * sum(float(weight.double().square().sum()) for weight in mine.values())
    assert json.loads((together / name / "summary.json").read_text())["figures"].keys() == alone["figures"].keys()


def test_fewer_negatives_would_be_another_loss(together, tmp_path):
    """What the two agree on is not that half the batch does as well."""
    run_method(build_method_recipe(case("clip", 8, tmp_path / "half")))
    first = [next(row["loss"] for row in entries(f) if "loss" in row) for f in (tmp_path / "half", together / "clip")]
    assert abs(first[0] - first[1]) > 0.1
