"""What every method of the wings must do, whichever it is."""

from pathlib import Path

import pytest

from align.wings.claim import Claim
from align.wings.recipe import build_method_recipe, method_tree, with_overrides
from align.wings.registry import load, modules
from align.wings.run import run_method

ROOT = Path(__file__).parents[2]
NAMES = sorted(modules())


def tree_of(name):
    return method_tree(ROOT / "recipes" / load(name).about.wing / f"{name}.yaml")


def quick(name, folder, **changes):
    overrides = {**load(name).quick, "output.dir": str(folder), **changes}
    return build_method_recipe(with_overrides(tree_of(name), overrides))


@pytest.mark.parametrize("name", NAMES)
def test_it_says_what_it_is(name):
    about = load(name).about
    assert about.title
    assert about.arxiv.replace(".", "").isdigit()
    assert about.equation
    assert about.summary.endswith(".")
    head = (ROOT / "recipes" / about.wing / f"{name}.yaml").read_text().splitlines()[:4]
    assert f"align train recipes/{about.wing}/{name}.yaml" in " ".join(head)


@pytest.mark.parametrize("name", NAMES)
def test_its_claim_can_be_run(name):
    tree = tree_of(name)
    claim = build_method_recipe(tree).claim
    assert isinstance(claim, Claim)
    assert claim.tuned_alike
    for arm, overrides in claim.arms.items():
        assert build_method_recipe(with_overrides(tree, overrides)), arm
        for trial in claim.trials_of(arm):
            assert build_method_recipe(with_overrides(tree, {**overrides, **trial}))


@pytest.mark.parametrize("name", NAMES)
def test_its_recipe_leaves_no_batch_to_fill_up(name):
    """Batches come out even, or what is left over is dropped."""
    trainer = build_method_recipe(tree_of(name)).trainer
    if "max_steps" in trainer and name != "metrix":  # whose sampler's batches are whole, as sample4geo's are
        assert trainer["dataloader_drop_last"]


@pytest.mark.parametrize("name", NAMES)
def test_it_runs_every_arm_and_has_the_figures_of_its_claim(name, tmp_path):
    claim = build_method_recipe(tree_of(name)).claim
    found = {}
    for arm, overrides in claim.arms.items():
        found[arm] = run_method(quick(name, tmp_path / arm, **overrides))["figures"]
    for relation in claim.relations:
        for arm in (relation.arm or next(iter(claim.arms)), relation.over, relation.under):
            assert arm is None or relation.figure in found[arm], (arm, relation.figure)
    if claim.tuning is not None:
        assert all(claim.tuning.figure in figures for figures in found.values())


@pytest.mark.parametrize("name", NAMES)
def test_a_run_draws_pictures_and_the_same_seed_gives_the_same_figures(name, tmp_path):
    first = run_method(quick(name, tmp_path / "a"))
    again = run_method(quick(name, tmp_path / "b"))
    assert first["figures"] == pytest.approx(again["figures"], rel=1e-5, abs=1e-7)
    assert list((tmp_path / "a" / "pictures").glob("*.png"))
