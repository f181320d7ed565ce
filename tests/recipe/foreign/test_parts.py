from align.recipe.errors import Origin
from align.recipe.foreign.draft import Draft
from align.recipe.foreign.given import Given
from align.recipe.foreign.parts import evaluates, hold_out, target_modules
from align.recipe.yaml_tree import Node, read_yaml


def given(text):
    return Given(Node(read_yaml(text, lambda line: Origin("f", line)).value, Origin("f")))


def test_whether_a_file_evaluates():
    assert evaluates(given("eval_strategy: steps"))
    assert evaluates(given("evaluation_strategy: epoch"))
    assert not evaluates(given("eval_strategy: 'no'"))
    assert not evaluates(given("eval_strategy: no"))
    assert not evaluates(given("do_eval: true"))


def test_a_share_is_held_out_and_a_count_is_asked_about():
    share, count = Draft(), Draft()
    hold_out(given("x: 1"), share, "x", 0.2)
    hold_out(given("x: 1"), count, "x", 200)
    assert (share.settings["data.eval_fraction"].value, share.decisions) == (0.2, [])
    assert "200 rows" in count.decisions[0].text


def test_all_linear_stays_a_word():
    draft = Draft()
    target_modules(given("x: 1"), draft, ["all-linear"])
    assert draft.settings["model.lora.target_modules"].value == "all-linear"
