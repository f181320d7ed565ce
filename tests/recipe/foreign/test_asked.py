from align.recipe.errors import Origin
from align.recipe.foreign.asked import Asked, likelihood, set_objective
from align.recipe.foreign.draft import Draft, Setting
from align.recipe.foreign.given import Given
from align.recipe.yaml_tree import Node, read_yaml

TEXT = "rl_beta: 0.2\nld_alpha: 0.5\nempty:\n"


def asked(names=None):
    root = read_yaml(TEXT, lambda line: Origin("f", line))
    return Asked(Given(Node(root.value, Origin("f"))), Draft(), names, loss="rl: dpo")


def test_settings_go_by_trls_names():
    it = asked({"beta": "rl_beta", "loss_type": "kinds"})
    assert it.setting("beta", 0.1) == Setting(value=0.2, source="rl_beta")
    assert it.setting("tau", 0.1) == Setting(value=0.1, source="TRL's default")
    assert it.name("dpo") == Setting(value="dpo", source="rl: dpo")


def test_a_key_that_is_not_among_the_names_is_not_read():
    it = asked({"beta": "rl_beta"})
    assert (it.take("ld_alpha"), it.gave("ld_alpha"), asked().take("ld_alpha")) == (None, False, 0.5)
    it.leave("ld_alpha", "why")
    assert it.draft.left == []


def test_decisions_and_reasons_name_their_key():
    it = asked({"beta": "rl_beta", "alpha": "ld_alpha", "x": "empty"})
    it.decide("alpha", "why")
    it.leave("beta", "why")
    it.leave("x", "why")
    assert [str(decision) for decision in it.draft.decisions] == ["ld_alpha (line 2): why"]
    assert it.draft.left == [("rl_beta", "why")]
    assert str(it.refuse("beta", "no")) == "f:1: rl_beta: no"


def test_one_part_is_a_mapping_and_several_are_a_list():
    name, one, half = Setting(value="dpo"), Setting(value=1.0), Setting(value=0.5)
    draft = Draft()
    set_objective(draft, [{"name": name, "weight": one}])
    assert list(draft.settings) == ["objective.name"]
    draft = Draft()
    set_objective(draft, [{"name": name, "weight": half}])
    assert list(draft.settings) == ["objective.0.name", "objective.0.weight"]
    draft = Draft()
    set_objective(draft, [{"name": name}, likelihood(half)])
    assert draft.settings["objective.1.nll"].value == "batch_mean"
