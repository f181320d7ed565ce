from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.logic.formula import FALSE, REF_L, REF_W, TRUE, Atom, L, W, chain
from align.logic.parsing import parse
from align.logic.rows import everything, rows_of
from align.logic.structure import PAIR, SIGNS, UP, Structure
from tests.logic.facts import REFERENCE_CORES, ROWS, SIXTEEN


def of_figure(name):
    top, bottom, *_ = SIXTEEN[name]
    bits = [sum(1 << (3 - ROWS.index(row)) for row in side.split()) for side in (top, bottom)]
    return Structure(PAIR, *bits)


sides = st.integers(0, 15)
structures = st.builds(Structure, st.just(PAIR), sides, sides)


@pytest.mark.parametrize("name", SIXTEEN)
def test_core_condition_and_additive_formula_give_the_rows_of_the_figure(name):
    *_, core, condition, additive, _ = SIXTEEN[name]
    found = of_figure(name)
    assert Structure.of(parse(core), parse(condition), parse(additive)).over(PAIR) == found
    said = found.weakest_core().formula, found.condition(), found.additive()
    for formula, expected in zip(said, (core, condition, additive), strict=True):
        assert rows_of(formula, PAIR) == rows_of(parse(expected), PAIR)


@pytest.mark.parametrize(("core", "names"), REFERENCE_CORES.items())
def test_reference_forms_have_the_nine_cores_of_the_figure(core, names):
    for name in names.split():
        form = of_figure(name).reference_form()
        assert form.atoms == (W, L, REF_W, REF_L)
        assert rows_of(form.weakest_core().formula, form.atoms) == rows_of(parse(core), form.atoms)


def test_dpo_is_the_reference_form_of_cpo():
    condition = parse("M(w) & Ref(l) | M(l) & Ref(w)")
    dpo = Structure.of(parse("Ref(w) & M(l) -> M(w) & Ref(l)"), condition, W & L & REF_W & REF_L)
    assert dpo == of_figure("CPO").reference_form()
    assert dpo.cores() == 2**10


def test_every_pair_of_sides_is_a_structure():
    for top, bottom in product(range(16), repeat=2):
        whole = Structure(PAIR, top, bottom)
        core, condition, additive = whole.weakest_core().formula, whole.condition(), whole.additive()
        assert Structure.of(core, condition, additive).over(PAIR) == whole


@given(structures)
def test_cores_lie_between_the_strongest_and_the_weakest(structure):
    strong, simple, weak = (
        rows_of(found.formula, PAIR)
        for found in (structure.strongest_core(), structure.simplest_core(), structure.weakest_core())
    )
    assert strong & ~simple == 0
    assert simple & ~weak == 0
    assert weak ^ strong == (structure.both | structure.neither) & 15
    assert structure.cores() == 2 ** (weak ^ strong).bit_count()
    assert Structure.of(structure.simplest_core().formula, structure.condition(), structure.additive()).over(PAIR) == (
        structure
    )


@given(structures, structures, structures)
def test_meet_and_join_make_a_lattice(a, b, c):
    assert a.meet(b) == b.meet(a)
    assert a.join(b.join(c)) == a.join(b).join(c)
    assert a.meet(a.join(b)) == a
    assert a.join(a.meet(b)) == a
    assert a.meet(b).entails(a)
    assert a.entails(a.join(b))
    assert a.entails(b) == (a.meet(b) == a) == (a.join(b) == b)
    if c.entails(a) and c.entails(b):
        assert c.entails(a.meet(b))


def test_orpo_and_cpo_meet_in_cunl_and_join_in_ccpo():
    orpo, cpo = of_figure("ORPO"), of_figure("CPO")
    assert orpo.meet(cpo) == of_figure("cUnl")
    assert orpo.join(cpo) == of_figure("cCPO")
    assert not orpo.entails(cpo)
    mine, theirs, row = orpo.breaking_row(cpo)
    assert (mine.mark(row), theirs.mark(row)) == ("neither", "both")
    assert cpo.breaking_row(of_figure("cCPO")) is None


def test_structures_over_different_atoms_compare():
    cpo, dpo = of_figure("CPO"), of_figure("CPO").reference_form()
    assert not cpo.equals(dpo)
    assert cpo.equals(cpo.over((W, L, REF_W)))
    assert cpo.over((W, L, REF_W)).without_idle_atoms() == cpo


@pytest.mark.parametrize("name", SIXTEEN)
def test_only_four_turn_their_sign_with_the_sides(name):
    assert of_figure(name).is_skew() == (name in ("CPO", "ORPO", "qfUnl", "l5"))
    assert of_figure(name).reference_form().is_skew() == (name in ("CPO", "ORPO", "qfUnl", "l5"))
    assert of_figure(name).swapped().swapped() == of_figure(name)


@given(structures)
def test_a_step_up_and_one_down_lead_back(structure):
    for row, mark, looser in structure.steps(up=True):
        assert structure.entails(looser)
        assert looser != structure
        assert looser.mark(row) == mark in UP[structure.mark(row)]
        assert structure in [tighter for _, _, tighter in looser.steps(up=False)]


def test_marks_are_four_and_drawn():
    cpo = of_figure("CPO")
    assert cpo.marks() == ("both", "win", "lose", "neither")
    assert Structure.of_marks(PAIR, cpo.marks()) == cpo
    assert [SIGNS[mark] for mark in cpo.marks()] == ["✓✗", "✓", "✗", "·"]
    assert next(cpo.rows()) == ({"M(w)": True, "M(l)": True}, "both")


def test_sides_and_their_structure_lead_to_each_other():
    top, bottom = of_figure("ORPO").sides()
    assert Structure.of_sides(top, bottom) == of_figure("ORPO")
    assert Structure.of(TRUE, TRUE, FALSE) == Structure((), 1, 0)


def test_the_policy_alone_is_marked_as_what_a_reference_form_is_made_of():
    for name in SIXTEEN:
        assert of_figure(name).reference_form().policy_marks() == of_figure(name)


def test_sixteen_responses_are_kept_whole_and_seventeen_refused():
    ranking = Structure.of(chain(16))
    assert ranking.top == everything(16) & ~ranking.bottom
    assert ranking.top.bit_count() == 17  # as many as there are places to cut a ranking
    with pytest.raises(ValueError, match="17 atoms"):
        ranking.over((*ranking.atoms, Atom("Safe")))
