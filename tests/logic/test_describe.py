import pytest

from align.logic.describe import in_signs, landscape_facts, near, pulls, shown, structure_facts, table
from align.logic.formula import L, W, chain
from align.logic.known import find, names
from align.logic.landscape import landscape, sixteen
from align.logic.parsing import parse
from align.logic.rows import rows_of
from align.logic.structure import Structure


def test_what_is_shown_of_dpo():
    found = shown(find("dpo"))
    assert found["name"] == "dpo"
    assert found["landscape"] == "DPO"
    expected = find("Ref(w) & M(l) -> M(w) & Ref(l)").needed()
    assert rows_of(parse(found["core"]), expected.atoms) == expected.top
    assert found["rho"] == "log [ (w·rl) / (l·rw) ]"
    assert (found["link"], found["decreasing"], found["column_class"]) == ("logistic", True, "neither")
    assert len(found["marks"]) == 16
    assert found["marks"][0] == {
        "row": {"M(w)": True, "M(l)": True, "Ref(w)": True, "Ref(l)": True},
        "mark": "both",
    }
    assert found["neighbours"] == {
        "tighter": ["sCE with reference", "cUnl with reference"],
        "looser": ["cCPO with reference", "l14 with reference"],
    }
    assert found["skew_symmetric"]
    assert found["small_probabilities"]["class"] == "ratio"


@pytest.mark.parametrize("name", names())
def test_formulas_that_are_shown_read_back(name):
    found = shown(find(name))
    for part in [found, *found.get("parts", [])]:
        if part.get("core") is None:
            continue
        structure = Structure.of(*(parse(part[key]) for key in ("core", "condition", "additive")))
        assert structure.top
        assert structure_facts(structure)["rho"] == part["rho"]


def test_a_loss_without_one_structure_shows_its_parts():
    found = shown(find("bco_pair"))
    assert (found["core"], found["outcome"]) == (None, "sum")
    assert [part["rho"] for part in found["parts"]] == ["log [ w / rw ]", "log [ rl / l ]"]
    refused = shown(find("simper"))
    assert "no multiple of a logarithm" in refused["parts"][0]["refusal"]


def test_tables_have_weights_and_masses():
    rows = table(sixteen()["CPO"], {W: 0.3, L: 0.2})
    assert [row["weight"] for row in rows] == ["wl", "w(1−l)", "(1−w)l", "(1−w)(1−l)"]
    assert [row["mass"] for row in rows] == pytest.approx([0.06, 0.24, 0.14, 0.56])
    assert "mass" not in table(sixteen()["CPO"])[0]


def test_pulls_are_slopes_of_the_policy():
    assert pulls(sixteen()["CPO"], {W: -1.0, L: -2.0}) == {
        "rho": 1.0,
        "d rho / d log M(w)": 1.0,
        "d rho / d log M(l)": -1.0,
    }


def test_landscapes_as_data():
    found = landscape_facts(landscape())
    assert len(found["nodes"]) == 16
    assert len(found["edges"]) == 32
    assert ["CEUnl", "sCE"] in found["edges"]
    cpo = next(node for node in found["nodes"] if node["name"] == "CPO")
    assert [entry["mark"] for entry in cpo["marks"]] == ["both", "win", "lose", "neither"]
    assert cpo["region"] == "M(l) -> M(w)"


def test_large_tables_are_not_listed():
    ranking = Structure.of(chain(8))
    assert structure_facts(ranking)["marks"] == []
    assert near(ranking, up=True) == []
    assert in_signs("M(l) -> M(w)") == "M(l) → M(w)"
