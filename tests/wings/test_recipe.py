from pathlib import Path

import pytest

from align.recipe.errors import RecipeError
from align.wings.recipe import (
    as_mapping,
    build_method_recipe,
    digest,
    load_method_recipe,
    method_tree,
    resolved_yaml,
    with_overrides,
)

ROOT = Path(__file__).parents[2]
CLIP = ROOT / "recipes" / "contrastive" / "clip.yaml"
SMALL = "method: clip\ndata: coloured_digits\ntrainer: {max_steps: 2}\n"


def written(tmp_path, text):
    file = tmp_path / "r.yaml"
    file.write_text(text)
    return file


def test_a_recipe_becomes_typed_settings(tmp_path):
    recipe = load_method_recipe(written(tmp_path, SMALL), ["settings.width=32", "trainer.seed=7"])
    assert recipe.method == "clip"
    assert recipe.settings.width == 32
    assert recipe.data == "coloured_digits"
    assert recipe.data_settings.held_out == 12
    assert recipe.seed == 7
    assert recipe.claim is None
    assert load_method_recipe(CLIP).claim.seeds == [11, 12, 13]


def test_resolved_it_is_the_same_recipe(tmp_path):
    recipe = load_method_recipe(CLIP)
    again = load_method_recipe(written(tmp_path, resolved_yaml(recipe)))
    assert as_mapping(again) == as_mapping(recipe)
    assert digest(again, with_claim=True) == digest(recipe, with_claim=True)


def test_a_run_does_not_depend_on_what_is_claimed_nor_on_where_it_goes(tmp_path):
    whole = method_tree(CLIP)
    recipe = build_method_recipe(whole)
    elsewhere = build_method_recipe(with_overrides(whole, {"output.dir": "/tmp/x"}))
    other_claim = build_method_recipe(with_overrides(whole, {"claim.seeds": [21, 22, 23]}))
    other_rate = build_method_recipe(with_overrides(whole, {"trainer.learning_rate": 0.5}))
    assert digest(elsewhere) == digest(recipe) == digest(other_claim) != digest(other_rate)
    assert digest(other_claim, with_claim=True) != digest(recipe, with_claim=True)


def test_overrides_keep_their_types():
    tree = with_overrides(
        method_tree(CLIP), {"settings.objective": "supervised", "settings.templates": ["a {}", "1 {}"]}
    )
    settings = build_method_recipe(tree).settings
    assert settings.objective == "supervised"
    assert settings.templates == ["a {}", "1 {}"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("method: clipp\ndata: mnist\n", r"r.yaml:1: method: no method 'clipp'; did you mean 'clip'"),
        ("method: clip\n", "missing: data"),
        ("method: clip\ndata: mnis\n", r"data.name: no data 'mnis'; did you mean 'mnist'"),
        ("method: clip\ndata: {size: 3}\n", "expected name: SOURCE or path: FOLDER"),
        ("method: clip\ndata: {name: mnist, sise: 3}\n", "no setting 'sise'; did you mean 'size'"),
        ("method: clip\ndata: {name: mnist, size: 3}\n", r"r.yaml:2: data.size: size must lie in 4 ... 28, got 3"),
        ("method: clip\ndata: mnist\nmodel: {path: x}\n", "a method's recipe has no section 'model'"),
        ("method: clip\ndata: mnist\nsettings: {widht: 3}\n", "the method 'clip' has no setting 'widht'"),
        ("method: clip\ndata: mnist\nsettings: {objective: dpo}\n", "none of the choices"),
        ("method: clip\ndata: mnist\ntrainer: {max_step: 3}\n", "no field 'max_step'"),
        ("method: clip\ndata: mnist\nclaim: {says: x, seeds: [1, 2, 3]}\n", "missing: claim.arms"),
    ],
)
def test_mistakes_are_named_with_their_place(tmp_path, text, said):
    with pytest.raises(RecipeError, match=said):
        load_method_recipe(written(tmp_path, text))


def test_a_path_of_ones_own_is_kept_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine").mkdir()
    recipe = load_method_recipe(written(tmp_path, "method: clip\ndata: {path: mine}\n"))
    assert as_mapping(recipe)["data"]["path"] == str(tmp_path / "mine")
