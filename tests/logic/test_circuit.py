import math
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.logic.circuit import circuit, count, log_ratio, ratio, row_weights, symbol, text
from align.logic.formula import REF_L, REF_W, Atom, L, W, chain
from align.logic.parsing import parse
from align.logic.rows import values
from align.logic.structure import PAIR, Structure
from tests.logic.facts import SIXTEEN
from tests.logic.test_structure import of_figure

FIVE = tuple(Atom("M", f"y{k}") for k in range(1, 6))
AT = dict(zip(FIVE, (Fraction(k, 11) for k in (1, 3, 4, 7, 10)), strict=True))


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60, deadline=None)
def test_a_circuit_counts_what_summing_the_rows_counts(rows):
    total = Fraction(0)
    for row in range(32):
        if rows >> row & 1:
            weight = Fraction(1)
            for atom, value in zip(FIVE, values(row, 5), strict=True):
                weight *= AT[atom] if value else 1 - AT[atom]
            total += weight
    assert count(circuit(rows, FIVE), AT) == total


@pytest.mark.parametrize("name", SIXTEEN)
def test_log_ratios_are_those_of_the_notes(name):
    top, bottom = ratio(of_figure(name))
    at = {W: 0.3, L: 0.2}
    assert math.log(count(top, at) / count(bottom, at)) == pytest.approx(SIXTEEN[name][-1], abs=1e-11)


def test_reference_forms_have_the_values_of_the_notes():
    at = {W: 0.3, L: 0.2, REF_W: 0.25, REF_L: 0.15}
    for name, expected in (("CPO", -0.105360515658), ("ORPO", 0.028170876967)):
        top, bottom = ratio(of_figure(name).reference_form())
        assert math.log(count(top, at) / count(bottom, at)) == pytest.approx(expected, abs=1e-11)
    core = Structure.of(parse("Ref(w) & M(l) -> M(w) & Ref(l)"))
    assert count(circuit(core.top, core.atoms), at) == pytest.approx(0.95225)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("CPO", "log [ w / l ]"),
        ("ORPO", "log [ (w(1−l)) / (l(1−w)) ]"),
        ("CEUnl", "log [ (w(1−l)) / (wl + 1−w) ]"),
        ("unCPO", "log [ (wl + 1−l) / (l(1−w)) ]"),
        ("CE", "log [ w / (1−w) ]"),
    ],
)
def test_log_ratios_are_written_as_the_figure_writes_them(name, said):
    assert log_ratio(of_figure(name)) == said


def test_factors_that_both_sides_share_are_left_out():
    shared = Structure.of_sides(W & REF_L, L & REF_L)
    assert log_ratio(shared) == "log [ w / l ]"
    assert log_ratio(Structure(PAIR, 0, 3)) == "undefined: nothing counts for the winner"
    assert log_ratio(Structure(PAIR, 3, 0)) == "undefined: nothing counts against the winner"


def test_letters_and_rows():
    assert [symbol(atom) for atom in (W, REF_L, Atom("Judge", "w"), Atom("Safe"), Atom("Const", "0.3"))] == (
        ["w", "rl", "Judge(w)", "Safe", "0.3"]
    )
    assert [text(weight) for _, weight in row_weights(of_figure("CPO"))] == ["wl", "w(1−l)", "(1−w)l", "(1−w)(1−l)"]


def test_a_ranking_of_sixteen_is_counted():
    ranking = Structure.of(chain(16))
    top, bottom = ratio(ranking)
    at = dict.fromkeys(ranking.atoms, Fraction(1, 2))
    assert count(top, at) == Fraction(17, 2**16)
    assert count(top, at) + count(bottom, at) == 1
