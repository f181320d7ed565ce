import random
from fractions import Fraction

import pytest
import sympy
import torch

from align.logic.circuit import circuit, count
from align.logic.compare import functional
from align.logic.compiled import FormulaObjective
from align.logic.counting import signature
from align.logic.decompile import decompile, facts, of_loss, of_score
from align.logic.expression import read_expression
from align.logic.formula import REF_L, REF_W, L, W
from align.logic.landscape import landscape, name_in_landscape
from align.logic.structure import PAIR, Structure
from align.logic.symbols import symbol
from align.logic.trace import TraceError
from align.objectives.base import Objective, PairObjective
from align.objectives.mixture import Mixture, Part, Smoothed
from align.objectives.registry import OBJECTIVES

LETTERS = {W: symbol("w"), L: symbol("l"), REF_W: symbol("ref_w"), REF_L: symbol("ref_l")}
DPO, CPO, ORPO, CE, CEUNL = ("CPO", "reference"), ("CPO", "sixteen"), ("ORPO", "sixteen"), ("CE", "sixteen"), "CEUnl"
CHOSEN, REJECTED = ("M(w)", "Ref(w)"), ("Ref(l)", "M(l)")
# What each loss is, by its definition: outcome, then link and structure of every part that is no regulariser.
EXPECTED = {
    **{n: ("structure", [("logistic", DPO)]) for n in ("dpo", "sigmoid_norm", "r_dpo", "odpo", "dpo_shift", "d2o")},
    **{n: ("structure", [("logistic", DPO)]) for n in ("ld_dpo", "sampo", "wpo", "cal_dpo", "iterative_rpo")},
    **{n: ("structure", [("logistic", DPO)]) for n in ("aot", "aot_unpaired")},
    **{n: ("structure", [("squared", DPO)]) for n in ("ipo", "ipo_sum")},
    **{n: ("structure", [("smoothed", DPO)]) for n in ("cdpo", "robust")},
    **{n: ("structure", [("its own", DPO)]) for n in ("discopop", "exo_pair")},
    "hinge": ("structure", [("hinge", DPO)]),
    "dpop": ("cases", [("logistic", DPO), ("logistic", DPO)]),
    **{n: ("structure", [("logistic", CPO)]) for n in ("simpo", "cpo")},
    **{n: ("structure", [("hinge", CPO)]) for n in ("slic_hf", "rrhf")},
    "orpo": ("structure", [("logistic", ORPO)]),
    "sft": ("structure", [("logistic", CE)]),
    "unlikelihood": ("structure", [("logistic", (CEUNL, "sixteen"))]),
    "gradient_ascent": ("structure", [("linear", ("true", "M(l)"))]),
    "npo": ("structure", [("logistic", REJECTED)]),
    "simnpo": ("structure", [("logistic", ("true", "M(l)"))]),
    "bco_pair": ("sum", [("logistic", CHOSEN), ("logistic", REJECTED)]),
    "nca_pair": ("sum", [("smoothed", CHOSEN), ("logistic", REJECTED)]),
    **{n: ("sum", [("squared", CHOSEN), ("squared", REJECTED)]) for n in ("sppo_hard", "sppo")},
    **{n: ("sum", [("sigmoid", CHOSEN), ("sigmoid", REJECTED)]) for n in ("apo_zero", "kto")},
    "apo_down": ("sum", [("sigmoid", DPO), ("sigmoid", ("Ref(w)", "M(w)"))]),
    "mpo": ("sum", [("logistic", DPO), ("logistic", CHOSEN), ("logistic", CE), ("logistic", REJECTED)]),
    "alphapo": ("refused", [("logistic", None)]),
    "simper": ("refused", [("linear", None)]),
}


def called(part):
    if part.reading is None:
        return None
    structure = part.reading.structure
    return name_in_landscape(structure) or tuple(map(str, structure.sides()))


def test_every_registered_objective_is_expected():
    assert set(EXPECTED) == set(OBJECTIVES)


@pytest.mark.parametrize("name", EXPECTED)
def test_objectives_are_read_as_what_they_are(name):
    outcome, parts = EXPECTED[name]
    found = decompile(OBJECTIVES.build(name))
    assert found.outcome == outcome
    assert [(part.link, called(part)) for part in found.parts if part.role != "added"] == parts


@pytest.mark.parametrize(
    ("name", "settings", "scale", "margin"),
    [
        ("dpo", {"beta": 0.3}, "0.3", "0"),
        ("simpo", {"beta": 4.0, "gamma": 0.5}, "4", "0.5"),
        ("r_dpo", {"beta": 0.1, "alpha": 0.05}, "0.1", "0.05*n_l - 0.05*n_w"),
        ("odpo", {"beta": 0.1}, "0.1", "log(-q_l + q_w)"),
        ("slic_hf", {"delta": 5.0}, "1", "5"),
        ("ipo", {"tau": 0.25}, "1", "2"),
        ("simnpo", {"beta": 2.5, "gamma": 0.5}, "2.5", "0.5"),
    ],
)
def test_scales_and_margins_are_taken_off(name, settings, scale, margin):
    (core, *_) = decompile(OBJECTIVES.build(name, **settings)).parts
    said = facts(core)
    assert (f"scale (beta): {scale}" in said) == (scale != "1")
    assert (f"margin: {margin}" in said) == (margin != "0")


def test_what_was_taken_off_is_said():
    assert decompile(OBJECTIVES.build("simpo")).core.reading.normalised
    assert not decompile(OBJECTIVES.build("cpo")).core.reading.normalised
    assert any("regulariser" in text for text in decompile(OBJECTIVES.build("orpo")).stripped)
    assert any("weighting of tokens" in text for text in decompile(OBJECTIVES.build("ld_dpo")).stripped)
    assert any("without gradient" in text for text in decompile(OBJECTIVES.build("wpo")).stripped)
    assert any("single tokens" in text for text in decompile(OBJECTIVES.build("unlikelihood")).stripped)
    assert any("couples the pairs" in text for text in decompile(OBJECTIVES.build("aot")).stripped)
    smoothed = decompile(OBJECTIVES.build("cdpo", label_smoothing=0.2)).core
    assert any("0.2 of labels" in text for text in facts(smoothed))


@pytest.mark.parametrize(
    ("name", "expected"),
    [("dpo", True), ("hinge", True), ("robust", True), ("ipo", False), ("cdpo", False), ("discopop", False)],
)
def test_links_that_rise_again_are_told(name, expected):
    assert decompile(OBJECTIVES.build(name)).core.decreasing is expected


def test_dpops_floor_is_two_cases_and_its_copies_are_proposed():
    idle, active = decompile(OBJECTIVES.build("dpop", lam=1.0)).parts
    assert called(idle) == DPO
    assert "< 0" in idle.case
    assert "> 0" in active.case
    top, bottom = map(str, active.reading.structure.sides())
    assert (top, bottom) == ("M(w) & M(w_2) & Ref(l)", "M(l) & Ref(w) & Ref(w_2)")
    assert any("copies" in note for note in active.reading.notes)


@pytest.mark.parametrize("divergence", ["forward_kl", "js_divergence", "alpha_divergence"])
def test_other_divergences_count_no_models(divergence):
    found = decompile(OBJECTIVES.build("dpo", f_divergence=divergence))
    assert found.outcome == "refused"
    if divergence == "js_divergence":
        assert "2 in the row M(w) = T" in found.core.refusal


def test_mixtures_and_smoothed_labels_are_read_term_by_term():
    parts = (Part(objective=OBJECTIVES.build("dpo")), Part(objective=OBJECTIVES.build("sft", nll="sum"), weight=0.2))
    found = decompile(Mixture(parts=parts))
    assert [called(part) for part in found.parts] == [DPO, CE]
    assert any("0.2 times" in text for text in facts(found.parts[1]))
    smoothed = decompile(Smoothed(objective=OBJECTIVES.build("dpo"), label_smoothing=0.25))
    assert (smoothed.core.link, called(smoothed.core), smoothed.core.smoothing) == ("smoothed", DPO, "0.25")


def rebuilt(structure):
    """The log-ratio of a structure as an expression, by summing its rows."""
    top, bottom = (count(circuit(rows, structure.atoms), LETTERS) for rows in (structure.top, structure.bottom))
    return sympy.log(sympy.sympify(top) / sympy.sympify(bottom))


def test_all_structures_of_two_atoms_come_back_as_one_with_their_ratio():
    for top in range(1, 16):
        for bottom in range(1, 16):
            whole = Structure(PAIR, top, bottom)
            if signature(whole) == (Fraction(1), Fraction(1)):
                continue  # the constant 0 has nothing to read
            reading = of_score(rebuilt(whole)).core.reading
            assert reading is not None, (top, bottom)
            assert reading.margin == 0
            found = reading.structure.over(PAIR)
            assert signature(found) == signature(whole)


def test_structures_with_a_reference_come_back():
    draw = random.Random(5)
    atoms = (W, L, REF_W, REF_L)
    for _ in range(20):
        whole = Structure(atoms, draw.randrange(1, 2**16), draw.randrange(1, 2**16))
        reading = of_score(rebuilt(whole)).core.reading
        assert (reading.scale, reading.margin) == (1, 0)
        found = reading.structure.over(atoms)
        point = dict(zip(atoms, (Fraction(2, 7), Fraction(3, 11), Fraction(5, 13), Fraction(7, 17)), strict=True))
        ratios = [
            Fraction(count(circuit(s.top, atoms), point)) / Fraction(count(circuit(s.bottom, atoms), point))
            for s in (whole, found)
        ]
        assert ratios[0] == ratios[1]


def test_the_landscape_comes_back_from_the_code_that_trains_it():
    for which in ("sixteen", "reference"):
        for node in landscape(which).nodes:
            structure = node.structure
            settings = {"formula": str(node.core), "condition": str(structure.condition())}
            objective = FormulaObjective(**settings, additive=str(structure.additive()), beta=0.7, margin=0.2)
            found = decompile(objective).core.reading.structure
            assert functional(found, structure, "equals").holds, node.name


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("log(w*(1-l)/(l+1-w))", "is 2 in the row M(w) = F, M(l) = T"),
        ("log((0.5*l + 0.5*ref_l)/w)", "Const(0.5)"),
        ("log(w + l)", "counted twice"),
        ("log(w)*log(l)", "no multiple of a logarithm"),
        ("log(w/l) + log(w^3 + w)", "more than once in a product"),
        ("beta - gamma", "does not depend on any probability"),
    ],
)
def test_what_counts_no_models_is_refused_with_the_reason(text, said):
    found = of_score(read_expression(text))
    assert found.outcome == "refused"
    assert said in found.core.refusal


def test_negative_log_likelihoods_are_logistic_losses_of_the_odds():
    for text, name in (
        ("-log(w)", "CE"),
        ("-log(1-l)", "fUnl"),
        ("-log(w)-log(1-l)", "CEUnl"),
        ("-log(w/(w+l))", "CPO"),
    ):
        core = of_loss(read_expression(text)).core
        assert (core.link, called(core)) == ("logistic", (name, "sixteen"))


def test_likelihoods_of_different_weights_are_read_one_by_one():
    found = of_loss(read_expression("-log(w) - 0.5*log(1-l)"))
    assert (found.outcome, {called(part) for part in found.parts}) == ("sum", {("fUnl", "sixteen"), CE})
    assert decompile(OBJECTIVES.build("unlikelihood", lam=0.3)).outcome == "sum"


class Odd(PairObjective):
    needs_reference = False

    def score(self, policy, reference):
        return torch.erf(policy.chosen - policy.rejected)

    def link(self, score):
        return -score


class Branching(Objective):
    needs_reference = False

    def losses(self, policy, reference):
        gap = policy.chosen - policy.rejected
        return -gap if gap.item() > 0 else -2 * gap


def test_code_that_cannot_be_followed_is_refused_by_name():
    with pytest.raises(TraceError, match="'erf'"):
        decompile(Odd())
    with pytest.raises(TraceError, match="branches on its values"):
        decompile(Branching())
