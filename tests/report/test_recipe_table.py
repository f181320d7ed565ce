from align.report.recipe_table import ABSENT, differences


def test_only_what_differs():
    one = {"objective": {"name": "dpo", "beta": 0.1}, "trainer": {"seed": 0}, "output": {"dir": "a"}}
    two = {"objective": {"name": "dpo", "beta": 0.5}, "trainer": {"seed": 0, "bf16": True}, "output": {"dir": "b"}}
    found = differences([one, two])
    assert found.differing == {"objective.beta": ["0.1", "0.5"], "trainer.bf16": [ABSENT, "true"]}
    assert found.same == {"objective.name": "dpo", "trainer.seed": "0"}


def test_a_text_is_not_a_number_and_null_is_not_absent():
    found = differences([{"a": "1", "b": None}, {"a": 1}])
    assert found.differing == {"a": ["'1'", "1"], "b": ["null", ABSENT]}


def test_recipes_alike_and_none_at_all():
    assert differences([{"a": 1}, {"a": 1}]).differing == {}
    assert differences([{"a": 1}, {}]).differing == {"a": ["1", ABSENT]}
