from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from types import MappingProxyType
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.recipe.convert import build, convert
from align.recipe.errors import Origin, RecipeError
from align.recipe.yaml_tree import Node, plain, read_yaml


class Colour(Enum):
    RED = "red"
    GREEN = "green"


@dataclass(frozen=True, kw_only=True)
class Inner:
    size: int
    scale: float = 2
    names: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size must be at least 0, got {self.size}")
        if self.scale > 10 * self.size:
            raise ValueError("one of the two is too large")


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner | None = None
    many: list[Inner] = field(default_factory=list)
    hidden: int = field(default=0, init=False)


def node(text: str) -> Node:
    read = read_yaml(text, lambda line: Origin("r.yaml", line))
    assert read is not None
    return read


def refusal(text: str, annotation: Any) -> str:
    with pytest.raises(RecipeError) as error:
        convert(node(text), annotation, "k")
    return str(error.value)


@pytest.mark.parametrize(
    ("text", "annotation", "value"),
    [
        ("3", int, 3),
        ("3", float, 3.0),
        ("3.0", float, 3.0),
        ("true", bool, True),
        ("no", str, "no"),
        ("null", None, None),
        ("null", int | None, None),
        ("3", int | None, 3),
        ("3", float | None, 3.0),
        ("3", float | int, 3),
        ("true", str | bool, True),
        ("all", str | bool, "all"),
        ("false", str | Literal[False] | None, False),
        ("red", Colour, "red"),
        ("red", Colour | str, "red"),
        ("b", Literal["a", "b"], "b"),
        ("[1, 2]", list[float], [1.0, 2.0]),
        ("[a]", str | list[str], ["a"]),
        ("[red]", str | list[Colour], ["red"]),
        ("[1, 2]", tuple[int, ...], (1, 2)),
        ("[1, 2]", Sequence[int], [1, 2]),
        ("{a: 1}", dict[str, float], {"a": 1.0}),
        ("{a: [1, b]}", dict, {"a": [1, "b"]}),
        ("{a: 1}", Mapping[str, int], MappingProxyType({"a": 1})),
        ("[1, {a: null}]", Any, [1, {"a": None}]),
        ("[1]", "what this is nobody knows", [1]),
    ],
)
def test_values_by_their_annotation(text: str, annotation: Any, value: object) -> None:
    result = convert(node(text), annotation, "k")
    assert result == value
    assert type(result) is type(value)


@pytest.mark.parametrize(
    ("text", "annotation", "message"),
    [
        ("abc", int, "expected a whole number, found 'abc' (a text)"),
        ("1.5", int, "expected a whole number, found 1.5 (a number)"),
        ("true", int, "expected a whole number, found true (a truth value)"),
        ("false", float, "expected a number, found false (a truth value)"),
        ("1", bool, "expected true or false, found 1 (a whole number)"),
        ("yes", bool, "expected true or false, found 'yes' (a text)"),
        ("8", str, "expected a text, found 8 (a whole number); a text that looks like this needs quotes"),
        ("null", str, "expected a text, found nothing (null)"),
        ("x", None, "expected null, found 'x' (a text)"),
        ("[1]", float | None, "expected a number or null, found a list"),
        ("{a: 1}", str | list[str] | None, "expected a text or a list or null, found a mapping"),
        ("x", Inner | None, "expected a mapping or null, found 'x' (a text)"),
        ("3", Literal["a", "b"], "expected one of 'a', 'b', found 3 (a whole number)"),
        ("reed", Colour | str, "'reed' is none of the choices; did you mean 'red'?"),
        ("zzz", Colour, "'zzz' is none of the choices; known: green, red"),
        (
            "keep_strat",
            Literal["keep_start", "drop"],
            "'keep_strat' is none of the choices; did you mean 'keep_start'?",
        ),
    ],
)
def test_wrong_types_say_what_was_expected_and_found(text: str, annotation: Any, message: str) -> None:
    assert refusal(text, annotation) == f"r.yaml:1: k: {message}"


def test_what_a_container_holds_has_its_own_place() -> None:
    assert refusal("[1,\n b]", list[int]) == "r.yaml:2: k.1: expected a whole number, found 'b' (a text)"
    assert refusal("a: 1\nb: x", dict[str, int]) == "r.yaml:2: k.b: expected a whole number, found 'x' (a text)"


def test_nested_classes() -> None:
    made = build(node("inner: {size: 1}\nmany:\n- {size: 2, scale: 3}\n"), Outer, "k")
    assert made == Outer(inner=Inner(size=1), many=[Inner(size=2, scale=3)])
    assert type(made.inner.scale) is float  # a default is what it would be if it were written


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "inner:\n  size: 1\n  scle: 2\n",
            "r.yaml:3: k.inner.scle: 'k.inner' has no setting 'scle'; did you mean 'scale'?",
        ),
        ("hidden: 1", "r.yaml:1: k.hidden: 'k' has no setting 'hidden'; known: inner, many"),
        ("inner:\n  scale: 2\n", "r.yaml:1: missing: k.inner.size"),
        ("many:\n- size: 1\n- size: -1\n", "r.yaml:3: k.many.1.size: size must be at least 0, got -1"),
        ("inner:\n  size: 1\n  scale: 11\n", "r.yaml:1: k.inner: one of the two is too large"),
        ("many:\n- 3\n", "r.yaml:2: k.many.0: expected a mapping, found 3 (a whole number)"),
    ],
)
def test_settings_that_a_class_refuses(text: str, message: str) -> None:
    with pytest.raises(RecipeError) as error:
        build(node(text), Outer, "k")
    assert str(error.value) == message


def test_an_implied_list_has_no_number_in_its_keys() -> None:
    one = Node([node("{size: a}")], Origin("r.yaml", 1), implied=True)
    with pytest.raises(RecipeError, match=r"^r.yaml:1: k.size: expected a whole number"):
        convert(one, list[Inner], "k")


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)
TYPES = st.sampled_from(
    [int, float, bool, str, int | None, str | list[str], dict[str, int], Literal["a"], Inner, Colour]
)


def as_node(value: Any) -> Node:
    if isinstance(value, dict):
        return Node({key: as_node(inner) for key, inner in value.items()}, Origin())
    return Node([as_node(inner) for inner in value] if isinstance(value, list) else value, Origin())


@given(PLAIN)
def test_any_is_the_plain_value(value: Any) -> None:
    assert convert(as_node(value), Any, "k") == value == plain(as_node(value))


@given(PLAIN, TYPES)
def test_whatever_is_given_is_converted_or_refused_with_its_key(value: Any, annotation: Any) -> None:
    try:
        result = convert(as_node(value), annotation, "k")
    except RecipeError as error:
        named = error.key
    else:
        named = "k"
        assert isinstance(value, bool) == isinstance(result, bool)
        assert result == value or isinstance(result, Inner)
    assert named.startswith("k")
