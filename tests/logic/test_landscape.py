import pytest

from align.logic.formula import L, W
from align.logic.landscape import (
    decisive,
    filtered,
    is_usual,
    landscape,
    name_in_landscape,
    neighbours,
    reference_name,
    sixteen,
)
from align.logic.structure import PAIR, Structure
from tests.logic.facts import EDGES, SIXTEEN, TWELVE, pairs
from tests.logic.test_structure import of_figure


def test_the_sixteen_are_those_of_the_figure():
    assert {name: of_figure(name) for name in SIXTEEN} == dict(sixteen())
    assert all(is_usual(structure) for structure in sixteen().values())
    every = [Structure(PAIR, top, bottom) for top in range(16) for bottom in range(16)]
    assert sum(map(is_usual, every)) == 16


def test_edges_are_those_of_the_figures():
    assert set(landscape().edges) == pairs(EDGES)
    assert len(landscape().edges) == 32
    assert set(landscape("twelve").edges) == pairs(TWELVE)
    assert (len(landscape("twelve").nodes), len(landscape("twelve").edges)) == (12, 18)
    assert set(landscape("reference").edges) == pairs(EDGES)


def test_regions_are_the_boxes_of_the_figures():
    assert landscape().regions() == {
        "M(w) ∧ ¬M(l)": ["CEUnl"],
        "M(w)": ["sCE", "l3", "CE"],
        "¬M(l)": ["cUnl", "l20", "fUnl"],
        "M(l) → M(w)": ["CPO", "l5", "ORPO", "qfUnl", "bCPO", "cCPO", "l14", "cfUnl", "unCPO"],
    }
    boxes = [set(names) for names in landscape("reference").regions().values()]
    assert len(boxes) == 9
    assert {"CPO", "l14"} in boxes
    assert {"ORPO", "cCPO", "cfUnl", "unCPO"} in boxes


def test_levels_are_those_of_a_boolean_lattice():
    levels = landscape().levels()
    assert [sum(level == k for level in levels.values()) for k in range(5)] == [1, 4, 6, 4, 1]
    assert (levels["CEUnl"], levels["unCPO"]) == (0, 4)


def test_neighbours_are_one_mark_away():
    cpo = sixteen()["CPO"]
    assert {one.name for one in neighbours(cpo, up=True)} == {"cCPO", "l14"}
    assert {one.name for one in neighbours(cpo, up=False)} == {"sCE", "cUnl"}
    for one in neighbours(cpo, up=True):
        assert one.structure.mark(one.row) == one.mark == "win"
    assert not neighbours(sixteen()["unCPO"], up=True)
    dpo = cpo.reference_form()
    assert {one.name for one in neighbours(dpo, up=True)} == {"cCPO with reference", "l14 with reference"}
    assert all(dpo.entails(one.structure) for one in neighbours(dpo, up=True))
    odd = Structure.of(W >> L)
    assert neighbours(odd, up=False)
    assert decisive(odd) == set()
    assert decisive(cpo) == {0b10, 0b01}


@pytest.mark.parametrize("name", SIXTEEN)
def test_structures_find_their_names(name):
    assert name_in_landscape(of_figure(name)) == (name, "sixteen")
    assert name_in_landscape(of_figure(name).reference_form()) == (name, "reference")
    assert reference_name("CPO") == "DPO"
    assert name_in_landscape(Structure.of(W >> L)) is None


def test_what_is_left_out_leaves_the_order_of_the_rest():
    ends = filtered(landscape(), lambda node: node.name in ("CEUnl", "CPO", "unCPO"))
    assert ends.edges == (("CEUnl", "CPO"), ("CPO", "unCPO"))
    assert ends.looser("CPO") == ["unCPO"]
    assert ends.tighter("CPO") == ["CEUnl"]
    assert ends.node("CPO").known.startswith("CPO")
