import math

import pytest

from align.logic.formula import REF_W, Atom, L, W, chain
from align.logic.known import UNPAIRED
from align.logic.landscape import landscape, sixteen
from align.logic.predict import column_class, leading_ratio, outlook, rewards_both_down, start, unread, warnings
from align.logic.slopes import link_at, log_ratio_at
from align.logic.structure import Structure
from tests.logic.facts import SIXTEEN

COLUMNS = {
    "neither": "ORPO cCPO cUnl CPO",
    "lose": "l3 CE CEUnl sCE",
    "win": "cfUnl unCPO fUnl l14",
    "both": "qfUnl bCPO l20 l5",
}
RATIOS = {"neither": "log [ w / l ]", "lose": "log [ w ]", "win": "log [ 1 / l ]", "both": "0"}


@pytest.mark.parametrize(("mark", "names"), COLUMNS.items())
def test_the_columns_of_the_table_and_what_the_ratio_becomes(mark, names):
    logs = {W: -120.0, L: -150.0}
    for name in names.split():
        structure = sixteen()[name]
        assert column_class(structure) == column_class(structure.reference_form()) == mark
        assert leading_ratio(structure) == RATIOS[mark]
        found = log_ratio_at(structure, logs)
        expected = {"neither": 30.0, "lose": -120.0, "win": 150.0, "both": 0.0}[mark]
        assert found.value == pytest.approx(expected, abs=1e-9)
        loss, slope = link_at("logistic", found.value, 1.0)
        pulls = [slope * found.by.get(atom, 0.0) for atom in (W, L)]
        if mark == "lose":  # the gradient of a plain likelihood
            assert pulls == pytest.approx([-1.0, 0.0], abs=1e-9)
        if mark == "win":
            assert loss == pytest.approx(0.0, abs=1e-60)
        if mark == "both":
            assert loss == pytest.approx(math.log(2))
            assert pulls == pytest.approx([0.0, 0.0], abs=1e-40)
        assert rewards_both_down(structure) == (mark == "win")


def test_reference_forms_keep_the_references_part():
    assert leading_ratio(landscape("reference").node("CE").structure) == "log [ w·rl / rw ]"
    assert leading_ratio(landscape("reference").node("CPO").structure) == "log [ w·rl / (l·rw) ]"


def test_what_is_not_read_is_named():
    assert [name for name in SIXTEEN if unread(sixteen()[name])] == ["CE", "fUnl"]
    assert (unread(sixteen()["CE"]), unread(sixteen()["fUnl"])) == (["l"], ["w"])
    assert unread(Structure.of(chain(3))) == []


def test_outlooks_of_one_response_speak_of_that_one():
    assert outlook(sixteen()["CE"]).title == "winner-anchored"
    assert outlook(UNPAIRED["unpaired_rejected"]).title == "loser only"
    assert "winner" in outlook(Structure.of(~W)).consequence
    assert outlook(Structure.of(L)).title == "loser only, up"
    assert outlook(Structure.of(chain(3))) is None
    assert outlook(Structure.of(W ^ L)).title == "of its own"  # pairs in wrong order win too
    assert outlook(Structure.of(W, W)) is None  # nothing counts against the winner


def test_warnings_say_what_to_know_before_training():
    assert any("probability 0" in text for text in warnings(sixteen()["unCPO"]))
    assert any("length_normalised" in text for text in warnings(sixteen()["l5"]))
    assert any("does not read the loser" in text for text in warnings(sixteen()["CE"]))
    assert any("not decreasing" in text for text in warnings(sixteen()["CPO"], link="squared", decreasing=False))
    assert warnings(sixteen()["ORPO"]) == []


@pytest.mark.parametrize("name", SIXTEEN)
def test_where_losses_start_is_told_by_the_likeliest_rows(name):
    for structure in (sixteen()[name], sixteen()[name].reference_form()):
        found = log_ratio_at(structure, dict.fromkeys(structure.atoms, -120.0)).value
        expected = "even" if abs(found) < 60 else "floor" if found > 0 else "far"
        assert start(structure) == expected
    mark = column_class(sixteen()[name])
    assert start(sixteen()[name]) == {"neither": "even", "both": "even", "lose": "far", "win": "floor"}[mark]


def test_a_reference_that_weighs_one_side_alone_is_warned_of():
    asked = Structure.of((L & REF_W) >> W, W | L)
    assert (column_class(asked), start(asked)) == ("neither", "floor")
    assert any("from the start" in text for text in warnings(asked))
    assert start(Structure.of(W & Atom("Const", "0.5"))) == "far"
    assert start(Structure.of(W, W)) is None
