import math
from itertools import product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.logic.compare import entails, equals, functional, point_above
from align.logic.formula import Atom, L, W
from align.logic.landscape import landscape, sixteen
from align.logic.slopes import link_at, log_ratio_at
from align.logic.structure import PAIR, Structure
from tests.logic.facts import SIXTEEN

structures = st.builds(Structure, st.just(PAIR), st.integers(1, 15), st.integers(1, 15))
shares = st.floats(0.01, 0.99)


def rho(structure, at):
    return log_ratio_at(structure, {atom: math.log(p) for atom, p in at.items()}).value


@given(structures, structures, shares, shares, st.sampled_from(["logistic", "hinge"]))
def test_a_loss_that_entails_another_is_nowhere_the_smaller_one(one, other, w, l, link):  # noqa: E741
    looser = one.join(other)
    if not looser.bottom:
        return
    losses = [link_at(link, rho(s, {W: w, L: l}), 0.7)[0] for s in (one, looser)]
    assert losses[0] >= losses[1] - 1e-12


def test_for_the_square_the_order_is_not_implied():
    at = {W: 0.45, L: 0.45 * math.exp(-4.9)}
    cpo, ccpo = sixteen()["CPO"], sixteen()["cCPO"]
    assert entails(cpo, ccpo).holds
    assert (rho(cpo, at), rho(ccpo, at)) == (pytest.approx(4.9), pytest.approx(5.498, abs=1e-3))
    assert link_at("squared", rho(cpo, at), 0.1)[0] == pytest.approx(0.01)
    assert link_at("squared", rho(ccpo, at), 0.1)[0] == pytest.approx(0.2478, abs=1e-3)


def test_within_the_landscape_rows_and_ratios_say_the_same():
    for a, b in product(SIXTEEN, repeat=2):
        one, other = sixteen()[a], sixteen()[b]
        assert functional(one, other, "entails").holds == entails(one, other).holds == one.entails(other)


def test_three_structures_have_the_ratio_of_ce():
    rows = {"TT": 8, "TF": 4, "FT": 2, "FF": 1}
    ce = sixteen()["CE"]
    for top, bottom in (("TT", "FT"), ("TF", "FF")):
        other = Structure(PAIR, rows[top], rows[bottom])
        assert functional(ce, other, "equals").holds
        assert not equals(ce, other).holds


def test_witnesses_are_right():
    for a, b in product(SIXTEEN, repeat=2):
        one, other = sixteen()[a], sixteen()[b]
        verdict = entails(one, other)
        assert verdict.holds == (verdict.witness is None)
        if verdict.holds:
            continue
        marks = dict(zip(("TT", "TF", "FT", "FF"), zip(one.marks(), other.marks(), strict=True), strict=True))
        row = "".join("FT"[value] for value in verdict.witness["row"].values())
        assert tuple(verdict.witness["marks"]) == marks[row]
        at = {W: verdict.witness["probabilities"]["M(w)"], L: verdict.witness["probabilities"]["M(l)"]}
        assert rho(one, at) > rho(other, at)
        mine, theirs = verdict.witness["losses"]
        assert mine < theirs
        assert mine == pytest.approx(math.log1p(math.exp(-rho(one, at))))


def test_where_rows_differ_and_no_order_flips_that_is_said():
    verdict = entails(Structure(PAIR, 15, 15), Structure(PAIR, 8, 8))
    assert not verdict.holds
    assert verdict.witness["probabilities"] is None
    assert "no probabilities were found" in verdict.why


def test_the_second_direction_is_witnessed_too():
    cpo, ccpo = sixteen()["CPO"], sixteen()["cCPO"]
    verdict = equals(cpo, ccpo)
    assert not verdict.holds
    assert verdict.witness["marks"] == ["both", "win"]  # in the order that was asked


def test_losses_with_and_without_a_reference_compare():
    dpo = landscape("reference").node("CPO").structure
    assert entails(dpo, landscape("reference").node("cCPO").structure).holds
    assert not entails(dpo, sixteen()["CPO"]).holds
    assert not functional(dpo, sixteen()["CPO"], "entails").holds


@given(structures, structures)
@settings(max_examples=40, deadline=None)
def test_a_functional_verdict_agrees_with_a_grid(one, other):
    verdict = functional(one, other, "entails")
    grid = [{W: a / 20, L: b / 20} for a, b in product(range(1, 20), repeat=2)]
    if verdict.holds:
        assert all(rho(one, at) <= rho(other, at) + 1e-9 for at in grid)
    else:
        at = {W: verdict.witness["probabilities"]["M(w)"], L: verdict.witness["probabilities"]["M(l)"]}
        assert rho(one, at) > rho(other, at)


def test_nothing_is_above_itself():
    judge = Structure.of(Atom("Judge", "w") >> W)
    assert point_above(judge, judge) is None


def test_losses_that_count_nothing_on_a_side_have_a_witness_all_the_same():
    always, never = Structure.of(W | ~W).without_idle_atoms(), Structure.of(W & ~W).without_idle_atoms()
    verdict = entails(always, never)
    assert (verdict.witness["row"], verdict.witness["probabilities"]) == ({}, {})
    assert verdict.witness["losses"] == [0.0, math.inf]
    assert entails(never, always).holds
