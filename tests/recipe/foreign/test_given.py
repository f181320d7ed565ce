from align.recipe.errors import Origin
from align.recipe.foreign.given import Given
from align.recipe.yaml_tree import Node, read_yaml

TEXT = "a: 1\nb: yes\nc: null\nd: {e: 2}\n"


def given():
    root = read_yaml(TEXT, lambda line: Origin("f.yaml", line))
    return Given(Node(root.value, Origin("f.yaml")))


def test_keys_are_taken_once_and_the_rest_is_left():
    it = given()
    assert (it.take("a"), it.take("b"), it.take("c", 7), it.take("absent", 8)) == (1, True, 7, 8)
    assert it.rest() == ["d"]
    assert it.peek("d") == {"e": 2}
    assert it.rest() == ["d"]


def test_lines_and_errors_name_the_place():
    it = given()
    assert (it.line("b"), it.line("absent")) == (2, None)
    assert str(it.refuse("c", "no")) == "f.yaml:3: c: no"


def test_a_nested_key_is_lifted():
    it = given()
    assert (it.lift("d", "e"), it.lift("d", "f"), it.lift("a", "e")) == ("d: e", "", "")
    assert (it.take("d: e"), it.line("d: e")) == (2, 4)
