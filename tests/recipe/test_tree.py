from collections.abc import Callable
from pathlib import Path

import pytest

from align.recipe.errors import RecipeError
from align.recipe.tree import load_tree
from align.recipe.yaml_tree import plain

Write = Callable[..., str]


def refusal(path: str, *overrides: str) -> str:
    with pytest.raises(RecipeError) as error:
        load_tree(path, overrides)
    return str(error.value)


@pytest.mark.parametrize(
    ("train", "sources"),
    [
        ("a.jsonl", [{"path": "a.jsonl"}]),
        ("{path: a.jsonl, weight: 2}", [{"path": "a.jsonl", "weight": 2}]),
        ("[a.jsonl, {path: b}]", [{"path": "a.jsonl"}, {"path": "b"}]),
    ],
)
def test_short_forms_of_a_source(write: Write, train: str, sources: object) -> None:
    path = write(f"data: {{train: {train}, eval: {train}}}")
    assert plain(load_tree(path).root)["data"] == {"train": sources, "eval": sources}


def test_an_objective_may_be_its_name(write: Write) -> None:
    path = write("objective: dpo")
    assert plain(load_tree(path).root)["objective"] == {"name": "dpo"}
    assert plain(load_tree(path, ["objective.beta=0.3"]).root)["objective"] == {"name": "dpo", "beta": 0.3}
    assert plain(load_tree(path, ["objective=sigmoid"]).root)["objective"] == {"name": "sigmoid"}


def test_overrides_reach_into_a_single_source(write: Write) -> None:
    mapping = write("data: {train: {synth: {seed: 1}}}")
    expected = [{"synth": {"seed": 1, "limit": 8}}]
    for override in ("data.train.synth.limit=8", "data.train.0.synth.limit=8"):
        assert plain(load_tree(mapping, [override]).root)["data"]["train"] == expected
    text = write("data: {train: a.jsonl}", "text.yaml")
    changed = load_tree(text, ["data.train.weight=0.5", "data.train.0.format=hh"])
    assert plain(changed.root)["data"]["train"] == [{"path": "a.jsonl", "weight": 0.5, "format": "hh"}]


def test_later_overrides_win_and_see_the_earlier(write: Write) -> None:
    path = write("data: {train: a.jsonl}\ntrainer: {max_steps: 1}")
    overrides = ["trainer.max_steps=2", "data.train=[b, c]", "data.train.1.weight=3", "trainer.max_steps=4"]
    root = plain(load_tree(path, overrides).root)
    assert root == {"data": {"train": [{"path": "b"}, {"path": "c", "weight": 3}]}, "trainer": {"max_steps": 4}}


def test_where_each_value_was_written(write: Write) -> None:
    path = write("model:\n  path: a\ndata:\n  train: a.jsonl\n")
    tree = load_tree(path, ["model.lora.r=8"])
    keys = ("model.path", "data.train.0.path", "model.lora.r", "model.dtype", "data.train.1.path", "nowhere.at.all")
    origins = ["r.yaml:2", "r.yaml:4", "command line", "default", "default", "default"]
    assert [str(tree.origin(key)) for key in keys] == origins


def test_files_that_hold_no_recipe(write: Write) -> None:
    assert refusal(write("")) == "r.yaml: empty; a recipe needs model, data and objective"
    assert (
        refusal(write("# later\n- a\n")) == "r.yaml:2: a recipe is a mapping of sections: model, data, objective, ..."
    )
    Path("latin.yaml").write_bytes("model:\n  path: a # f\xfcr\n".encode("latin-1"))
    assert refusal("latin.yaml") == "latin.yaml:2: not UTF-8 text; save the file as UTF-8"
    Path("folder").mkdir()
    assert refusal("folder") == "folder: cannot be read: Is a directory"
    assert refusal("away/r.yaml") == f"away/r.yaml: no such recipe; looked in {Path.cwd() / 'away'}"


def test_a_byte_order_mark_is_no_part_of_the_recipe(write: Write) -> None:
    assert plain(load_tree(write("\ufeffobjective: dpo")).root) == {"objective": {"name": "dpo"}}
