import pytest

from align.recipe.errors import Origin, RecipeError
from align.recipe.overrides import apply_override
from align.recipe.yaml_tree import Node, plain, read_yaml

TEXT = "model: {path: a, lora: null}\ndata: {train: [{path: x}, {path: y}], one: [{path: z}]}\n"


def root() -> Node:
    node = read_yaml(TEXT, lambda line: Origin("r.yaml", line))
    assert node is not None
    return node


@pytest.mark.parametrize(
    ("override", "section", "expected"),
    [
        ("model.path=b", "model", {"path": "b", "lora": None}),
        ("model.lora.r=8", "model", {"path": "a", "lora": {"r": 8}}),
        ("model.lora = {r: 8, x: 1e-4}", "model", {"path": "a", "lora": {"r": 8, "x": 1e-4}}),
        ("model.path=null", "model", {"path": None, "lora": None}),
        ("model.path=''", "model", {"path": "", "lora": None}),
        ("model.path=a=b", "model", {"path": "a=b", "lora": None}),
        ("trainer.max_steps=40", "trainer", {"max_steps": 40}),
        ("data.train.1.path=b", "data", {"train": [{"path": "x"}, {"path": "b"}], "one": [{"path": "z"}]}),
        ("data.one.w=2", "data", {"train": [{"path": "x"}, {"path": "y"}], "one": [{"path": "z", "w": 2}]}),
        ("data.train=[b, c]", "data", {"train": ["b", "c"], "one": [{"path": "z"}]}),
    ],
)
def test_one_value_is_replaced(override: str, section: str, expected: object) -> None:
    before = root()
    after = apply_override(before, override)
    assert plain(after)[section] == expected
    assert plain(before) == plain(root())  # the tree before is left alone


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("trainer.max_steps", "trainer.max_steps: not an override; write section.key=value"),
        ("=3", "=3: not an override"),
        ("a..b=3", "a..b=3: not an override"),
        ("model.path=", "model.path=: nothing after '='; write null for none, '' for an empty text"),
        ("model.path=[1", "model.path=[1: not valid YAML: while parsing a flow sequence"),
        ("model.path={a: 1, a: 2}", "model.path={a: 1, a: 2}: model.path.a: given twice, in one value"),
        ("model.path.x=1", "model.path.x=1: model.path is a single value, it holds no 'x'"),
        ("data.train.path=b", "data.train.path=b: data.train is a list of 2; say which, for example data.train.0.path"),
        (
            "data.train.2.path=b",
            "data.train.2.path=b: data.train.2: data.train is a list of 2; the last is data.train.1",
        ),
    ],
)
def test_what_is_refused(override: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        apply_override(root(), override)
    assert str(error.value).startswith(f"command line: {message}")
    assert error.value.line is None
    assert error.value.file is None
