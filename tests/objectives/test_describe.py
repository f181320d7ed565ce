"""What is known of an objective as data."""

from align.objectives.describe import data_of, details, formula_lines, settings_of, summary
from align.objectives.registry import OBJECTIVES


def test_settings_come_with_defaults_and_meanings_their_own_first():
    settings = settings_of(OBJECTIVES["discopop"])
    assert [s.name for s in settings] == ["tau", "beta", "f_divergence", "f_alpha"]
    assert settings[0].default == 0.05
    assert settings[0].meaning.startswith("width of the blend")
    assert settings[1].meaning.startswith("how hard the policy is held")


def test_a_setting_that_is_declared_again_has_its_new_meaning():
    (smoothing, *_) = settings_of(OBJECTIVES["exo_pair"])
    assert (smoothing.name, smoothing.default) == ("label_smoothing", 1e-3)
    assert "greater than 0" in smoothing.meaning


def test_an_alias_is_described_under_its_own_name():
    assert details("sigmoid")["name"] == "dpo"
    assert "sigmoid" in details("dpo")["aliases"]


def test_summaries_have_the_promised_keys():
    assert {"name", "needs", "data", "d_w", "d_l", "source"} <= summary("cpo").keys()
    assert data_of(OBJECTIVES.build("sppo")) == "scored pairs"


def test_formulas_name_their_short_forms_and_tokens():
    lines = dict(formula_lines(details("orpo")))
    assert lines["  u"] == "(ā − log(1 − e^ā)) − (b̄ − log(1 − e^b̄))"
    assert any("one token" in name for name, _ in formula_lines(details("unlikelihood")))
