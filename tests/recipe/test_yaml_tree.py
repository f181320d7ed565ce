import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.recipe.errors import Origin, RecipeError
from align.recipe.yaml_tree import Node, plain, read_yaml, scalar


def read(text: str) -> Node:
    node = read_yaml(text, lambda line: Origin("r.yaml", line))
    assert node is not None
    return node


def refusal(text: str) -> str:
    with pytest.raises(RecipeError) as error:
        read(text)
    return str(error.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [
        ("true", True),
        ("FALSE", False),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("null", None),
        ("~", None),
        ("", None),
        ("1e-4", 1e-4),
        ("1E-4", 1e-4),
        ("1.5e3", 1500.0),
        (".5", 0.5),
        ("5.", 5.0),
        ("-.inf", -math.inf),
        ("010", 10),
        ("+3", 3),
        ("1:30", "1:30"),
        ("2024-01-01", "2024-01-01"),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        ("e5", "e5"),
        (".", "."),
    ],
)
def test_bare_words(word: str, value: object) -> None:
    assert scalar(word) == value
    assert type(scalar(word)) is type(value)
    assert plain(read(f"a: {word}")) == {"a": value}


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_numbers_are_read_as_python_writes_them(number: float) -> None:
    assert scalar(repr(number)) == number
    assert type(scalar(repr(number))) is type(number)


def test_quoted_and_block_values_are_texts() -> None:
    assert plain(read("a: '5'\nb: \"true\"\nc: |\n  null\n")) == {"a": "5", "b": "true", "c": "null\n"}


def test_every_value_knows_the_line_of_its_key() -> None:
    root = read("a:\n  b: 1\n  c:\n    - x\n    - {d:\n        2}\n")
    assert isinstance(root.value, dict)
    a = root.value["a"]
    assert isinstance(a.value, dict)
    c = a.value["c"]
    assert isinstance(c.value, list)
    item = c.value[1]
    assert isinstance(item.value, dict)
    lines = [node.origin.line for node in (a, a.value["b"], c, c.value[0], item, item.value["d"])]
    assert lines == [1, 2, 3, 4, 5, 5]


def test_a_key_given_twice_names_both_lines() -> None:
    assert refusal("a:\n  b: 1\n  c: 2\n  b: 3\n") == "r.yaml:4: a.b: given twice, on line 2 and on line 4"


def test_anchors_and_merge_keys() -> None:
    text = "x: &x {a: 1, b: 2}\ny: &y {b: 3, c: 4}\nz:\n  <<: [*x, *y]\n  a: 9\nw: *x\n"
    root = read(text)
    assert plain(root)["z"] == {"a": 9, "b": 2, "c": 4}  # its own keys first, then the earlier of the merged
    assert plain(root)["w"] == {"a": 1, "b": 2}
    assert isinstance(root.value, dict)
    z = root.value["z"]
    assert isinstance(z.value, dict)
    assert [z.value[key].origin.line for key in "abc"] == [5, 1, 2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: !!python/object:os.system x\n", "r.yaml:1: a: tags such as 'tag:yaml.org,2002:python/object:os.system'"),
        ("a: !!int '3'\n", "r.yaml:1: a: tags such as 'tag:yaml.org,2002:int'"),
        ("b: 1\na: &a [*a]\n", "r.yaml:2: a.0: an anchor contains itself"),
        ("a:\n  <<: 3\n", "r.yaml:2: a: '<<' takes a mapping, or a list of them"),
        ("a:\n  [1, 2]: 3\n", "r.yaml:2: a: a key must be a plain word"),
        ("a: 1\nb: [1, 2\n", "r.yaml:3: not valid YAML: while parsing a flow sequence, expected ',' or ']'"),
        ("a: b: c\n", "r.yaml:1: not valid YAML: mapping values are not allowed here"),
        ("a:\n\tb: 1\n", "r.yaml:2: not valid YAML: while scanning for the next token, found character '\\t'"),
        ("a: 1\n---\nb: 2\n", "r.yaml:2: not valid YAML: expected a single document in the stream"),
        ("a: *x\n", "r.yaml:1: not valid YAML: found undefined alias 'x'"),
        ("a: 1\nb: \x07\n", "r.yaml:2: not valid YAML: the character '\\x07' is not allowed"),
    ],
)
def test_what_is_refused(text: str, message: str) -> None:
    assert refusal(text).startswith(message)


def test_a_tab_is_explained() -> None:
    assert refusal("a:\n\tb: 1\n").endswith("a tab cannot indent")


def test_an_empty_document_is_none() -> None:
    assert read_yaml("# nothing\n", lambda line: Origin("r.yaml", line)) is None
