"""The registry finds names and aliases, and says what is near an unknown one."""

from dataclasses import dataclass

import pytest

from align.objectives.base import PairObjective
from align.objectives.dpo import DPO, DPO_CARD
from align.objectives.registry import OBJECTIVES, Registry

ASKED = {
    *("dpo", "hinge", "ipo", "ipo_sum", "exo_pair", "nca_pair", "robust", "bco_pair", "sppo_hard", "sppo", "aot"),
    *("aot_unpaired", "apo_zero", "apo_down", "discopop", "sft", "sigmoid_norm", "ld_dpo", "wpo", "cpo", "simpo"),
    *("alphapo", "orpo", "kto", "r_dpo", "rrhf", "slic_hf", "dpop", "cdpo", "odpo", "cal_dpo", "iterative_rpo", "mpo"),
    *("dpo_shift", "sampo", "unlikelihood", "gradient_ascent", "npo", "simnpo"),
}
"""The margin family, all of TRL's, and what else was promised."""


def test_every_promised_objective_is_there():
    assert set(OBJECTIVES) >= ASKED


def test_builds_by_name_and_alias():
    assert OBJECTIVES.build("dpo", beta=0.3) == DPO(beta=0.3)
    assert OBJECTIVES.build("sigmoid") == DPO()
    assert OBJECTIVES.name_of(DPO()) == "dpo"
    assert OBJECTIVES.resolve("sigmoid") == "dpo"
    assert OBJECTIVES.aliases("dpo") == ["sigmoid"]
    assert OBJECTIVES.card("sigmoid") is DPO_CARD


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
    registry.register("dpo", DPO_CARD)(DPO)
    with pytest.raises(ValueError, match="'dpo' is taken"):
        registry.register("other", DPO_CARD, aliases=("dpo",))(DPO)

    @dataclass
    class Mutable(PairObjective):
        def score(self, policy, reference):
            return policy.chosen

        def link(self, score):
            return score

    with pytest.raises(ValueError, match="frozen dataclass"):
        registry.register("mutable", DPO_CARD)(Mutable)
