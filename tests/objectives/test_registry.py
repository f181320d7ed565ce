"""The registry finds names and aliases, and says what is near an unknown one."""

from dataclasses import dataclass

import pytest

from align.objectives.base import PairObjective
from align.objectives.dpo import DPO
from align.objectives.registry import OBJECTIVES, Registry


def test_builds_by_name_and_alias():
    assert OBJECTIVES.build("dpo", beta=0.3) == DPO(beta=0.3)
    assert OBJECTIVES.build("sigmoid") == DPO()
    assert OBJECTIVES.name_of(DPO()) == "dpo"


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("dppo", {}, r"unknown objective 'dppo'; did you mean 'dpo'\?"),
        ("dpo", {"betta": 1}, r"objective 'dpo' has no setting 'betta'; did you mean 'beta'\?"),
        ("dpo", {"zzz": 1}, r"has no setting 'zzz'; known: beta"),
        ("dpo", {"beta": -1.0}, "beta must be greater than 0"),
    ],
)
def test_mistakes(name, settings, message):
    with pytest.raises(ValueError, match=message):
        OBJECTIVES.build(name, **settings)


def test_refuses_taken_names_and_mutable_settings():
    registry = Registry()
    registry.register("dpo")(DPO)
    with pytest.raises(ValueError, match="'dpo' is taken"):
        registry.register("other", aliases=("dpo",))(DPO)

    @dataclass
    class Mutable(PairObjective):
        def score(self, policy, reference):
            return policy.chosen

        def link(self, score):
            return score

    with pytest.raises(ValueError, match="frozen dataclass"):
        registry.register("mutable")(Mutable)
