import math

import pytest

from align.logic.doctor import Setting, examine
from align.logic.formula import Atom, W
from align.logic.landscape import landscape, sixteen
from align.logic.structure import Structure

SMALL = [{"chosen": -50.0 - k, "rejected": -60.0 + k} for k in range(4)]
LIKELY = [{"chosen": math.log(0.3), "rejected": math.log(0.2)}]


def test_losses_of_the_win_column_pull_no_more_on_whole_responses():
    found = examine(sixteen()["unCPO"], SMALL, Setting())
    assert (found["column_class"], found["pairs"]) == ("win", 4)
    assert (found["vanished"], found["small"]) == (1.0, 1.0)
    assert found["loss"] == pytest.approx(0.0, abs=1e-20)
    assert any("collapse" in text for text in found["advice"])
    assert any("length_normalised" in text for text in found["advice"])


def test_losses_of_the_ratio_column_pull_on_both_alike():
    found = examine(sixteen()["ORPO"], SMALL, Setting(scale=0.1))
    assert found["d_w"] == pytest.approx(found["d_l"])
    assert found["vanished"] == 0
    assert found["both_down_pays"] == 0


def test_on_likely_responses_both_down_pays():
    found = examine(sixteen()["fUnl"], LIKELY, Setting())
    assert found["both_down_pays"] == 1
    assert found["d_w"] == 0
    assert found["d_l"] > 0
    assert any("sft" in text for text in found["advice"])


def test_the_loss_is_that_of_the_notes():
    found = examine(sixteen()["cCPO"], LIKELY, Setting())
    assert found["loss"] == pytest.approx(0.382992252256, abs=1e-11)
    assert (found["lowest"], found["highest"]) == (pytest.approx(0.2), pytest.approx(0.3))


def test_lengths_make_probabilities_of_tokens():
    rows = [{"chosen": -30.0, "rejected": -60.0, "chosen_length": 10, "rejected_length": 30}]
    found = examine(sixteen()["CPO"], rows, Setting(normalised=True))
    assert found["loss"] == pytest.approx(math.log1p(math.exp(1.0)))
    assert found["lowest"] == pytest.approx(math.exp(-3.0))


def test_references_links_and_margins():
    rows = [{"chosen": -5.0, "rejected": -6.0, "ref_chosen": -5.5, "ref_rejected": -5.5}]
    dpo = landscape("reference").node("CPO").structure
    assert examine(dpo, rows, Setting.of("logistic", 0.5))["loss"] == pytest.approx(math.log1p(math.exp(-0.5)))
    assert examine(dpo, rows, Setting.of("squared", 0.1))["loss"] == pytest.approx((1 - 5) ** 2)
    assert examine(dpo, rows, Setting.of("hinge", 2.0, 0.5))["loss"] == pytest.approx(1.5)
    for wrong in (("logistic", 0.0), ("squared", -1.0), ("logistic", 1.0, math.nan), ("logistic", math.inf)):
        with pytest.raises(ValueError, match="beta must be greater than 0"):
            Setting.of(*wrong)


@pytest.mark.parametrize(
    ("row", "says"),
    [
        ({"chosen": -1.0}, "row 2: rejected is missing"),
        ({"chosen": "x", "rejected": -1.0}, "row 2: chosen is 'x', not a number"),
        ({"chosen": 0.5, "rejected": -1.0}, "row 2: chosen is 0.5; a log-probability is at most 0"),
        ({"chosen": -1.0, "rejected": -1.0, "chosen_length": 0, "rejected_length": 3}, "row 2: chosen_length is 0"),
    ],
)
def test_wrong_rows_are_named(row, says):
    good = {"chosen": -1.0, "rejected": -2.0, "chosen_length": 2, "rejected_length": 3}
    with pytest.raises(ValueError, match=says):
        examine(sixteen()["CPO"], [good, row], Setting(normalised="length" in says))


def test_fixed_probabilities_need_no_column():
    halved = Structure.of(W & Atom("Const", "0.5"))
    assert examine(halved, LIKELY, Setting())["loss"] == pytest.approx(-math.log(0.15))


def test_atoms_without_a_column_are_refused():
    with pytest.raises(ValueError, match=r"Judge\(w\)"):
        examine(Structure.of(Atom("Judge", "w") >> W), LIKELY, Setting())
