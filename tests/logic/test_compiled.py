import math
from itertools import product

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional as F

from align.logic.circuit import atoms_of, ratio
from align.logic.compiled import FormulaObjective
from align.logic.formula import REF_L, REF_W, L, W
from align.logic.landscape import landscape
from align.logic.parsing import parse
from align.logic.printing import infix
from align.logic.structure import PAIR, Structure
from align.objectives.logps import PairLogps
from tests.logic.facts import SIXTEEN

EXTREMES = (0.0, -1e-7, -1.0, -100.0, -1e4)
DPO = {"formula": "Ref(w) & M(l) -> M(w) & Ref(l)", "condition": "M(w) & Ref(l) | M(l) & Ref(w)"}
DPO["additive"] = "M(w) & M(l) & Ref(w) & Ref(l)"
CPO = {"formula": "M(l) -> M(w)", "condition": "M(w) | M(l)", "additive": "M(w) & M(l)"}
ORPO = {"formula": "M(l) -> M(w)", "condition": "one_hot(M(w), M(l))"}


# -log sigmoid(rho) at w = 0.3 and l = 0.2.
LOSSES = {
    "CEUnl": 1.427116355640,
    "sCE": 1.262241712450,
    "CE": 1.203972804326,
    "l3": 1.365240951922,
    "cUnl": 0.606135803570,
    "l20": 0.667829372576,
    "fUnl": 0.223143551314,
    "ORPO": 0.459532329378,
    "CPO": 0.510825623766,
    "l14": 0.209091797859,
    "cCPO": 0.382992252256,
    "unCPO": 0.150822889735,
    "qfUnl": 0.628608659422,
    "l5": 0.633249038979,
    "bCPO": 0.595508710996,
    "cfUnl": 0.161268147596,
}


def of_node(node, **settings):
    structure = node.structure
    formulas = {"formula": infix(node.core), "condition": infix(structure.condition())}
    return FormulaObjective(**formulas, additive=infix(structure.additive()), **settings)


def pair_logps(chosen, rejected, lengths=(3, 4), **more):
    n = len(chosen)
    sizes = {"chosen_lengths": torch.full((n,), lengths[0]), "rejected_lengths": torch.full((n,), lengths[1])}
    return PairLogps(chosen=chosen, rejected=rejected, **sizes, **more)


def batch(rows=6, seed=0, dtype=torch.float64):
    draw = torch.Generator().manual_seed(seed)
    numbers = [-3 * torch.rand(rows, generator=draw, dtype=dtype) - 0.05 for _ in range(4)]
    leaves = [x.requires_grad_() for x in numbers]
    return pair_logps(*leaves[:2]), pair_logps(*leaves[2:]), leaves


@pytest.mark.parametrize("name", SIXTEEN)
def test_the_sixteen_have_the_values_of_the_notes(name):
    node = landscape().node(name)
    w, l = (torch.tensor([p], dtype=torch.float64).log() for p in (0.3, 0.2))  # noqa: E741
    objective = of_node(node)
    rho = SIXTEEN[name][-1]
    torch.testing.assert_close(objective.score(pair_logps(w, l), None), torch.tensor([rho], dtype=torch.float64))
    assert objective(pair_logps(w, l)).item() == pytest.approx(LOSSES[name], abs=1e-11)
    assert not objective.needs_reference


@pytest.mark.parametrize(
    ("formulas", "rho", "loss"),
    [
        (DPO, -0.105360515658, 0.747214401830),
        (
            {
                "formula": "Ref(w) & M(l) -> M(w)",
                "condition": "M(w) & ~M(l) & Ref(l) | M(l) & ~M(w) & Ref(w)",
            },
            0.028170876967,
            0.679160938585,
        ),
    ],
    ids=["DPO", "ORPO with reference"],
)
def test_reference_forms_have_the_values_of_the_notes(formulas, rho, loss):
    w, l, ref_w, ref_l = (torch.tensor([p], dtype=torch.float64).log() for p in (0.3, 0.2, 0.25, 0.15))  # noqa: E741
    objective = FormulaObjective(**formulas)
    policy, reference = pair_logps(w, l), pair_logps(ref_w, ref_l)
    assert objective.score(policy, reference).item() == pytest.approx(rho, abs=1e-11)
    assert objective(policy, reference).item() == pytest.approx(loss, abs=1e-11)
    with pytest.raises(ValueError, match="compares with a reference"):
        objective(policy)


def _by_hand(policy, reference):
    h = (policy.chosen - policy.rejected) - (reference.chosen - reference.rejected)
    m = policy.chosen - policy.rejected
    odds = m - torch.log1p(-policy.chosen.exp()) + torch.log1p(-policy.rejected.exp())
    return {
        "dpo": (DPO, {"beta": 0.3}, -F.logsigmoid(0.3 * h)),
        "cpo": (CPO, {"beta": 0.7}, -F.logsigmoid(0.7 * m)),
        "ipo": (DPO, {"link": "squared", "beta": 0.2}, (h - 1 / 0.4).square()),
        "slic": (CPO, {"link": "hinge", "beta": 1.5}, torch.relu(1.5 - m)),
        "orpo": (ORPO, {}, -F.logsigmoid(odds)),
        "simpo": (
            CPO,
            {"beta": 2.0, "margin": 0.5, "length_normalised": True},
            -F.logsigmoid(2.0 * (policy.chosen / 3 - policy.rejected / 4) - 1.0),
        ),
    }


@pytest.mark.parametrize("name", ["dpo", "cpo", "ipo", "slic", "orpo", "simpo"])
def test_losses_and_gradients_are_those_of_the_formulas_in_papers(name):
    policy, reference, leaves = batch()
    formulas, settings, expected = _by_hand(policy, reference)[name]
    found = FormulaObjective(**formulas, **settings)(policy, reference)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    mine = torch.autograd.grad(found.sum(), leaves, allow_unused=True, retain_graph=True)
    theirs = torch.autograd.grad(expected.sum(), leaves, allow_unused=True)
    for a, b in zip(mine, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("link", ["logistic", "squared", "hinge"])
@pytest.mark.parametrize("which", ["sixteen", "reference"])
@pytest.mark.parametrize("autocast", [False, True])
def test_value_and_gradient_are_finite_at_extremes(link, which, autocast):
    points = torch.tensor(list(product(EXTREMES, repeat=4)))
    for node in landscape(which).nodes:
        leaves = [points[:, k].clone().requires_grad_() for k in range(4)]
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            losses = of_node(node, link=link)(pair_logps(*leaves[:2]), pair_logps(*leaves[2:]))
        losses.sum().backward()
        assert torch.isfinite(losses).all(), node.name
        assert losses.dtype == torch.float32
        for leaf in leaves:
            assert leaf.grad is None or torch.isfinite(leaf.grad).all(), node.name


@pytest.mark.parametrize("settings", [{}, {"link": "squared", "beta": 0.3}, {"link": "hinge", "beta": 9.0}])
@pytest.mark.parametrize("name", SIXTEEN)
def test_gradients_check_numerically(name, settings):
    objective = of_node(landscape("reference").node(name), **settings)
    _, _, leaves = batch(rows=3)

    def losses(w, l, ref_w, ref_l):  # noqa: E741
        return objective(pair_logps(w, l), pair_logps(ref_w, ref_l))

    assert torch.autograd.gradcheck(losses, [leaf.detach().requires_grad_() for leaf in leaves])


def row_weight(row, probabilities):
    """The weight of a row of a truth table, whose first atom is the highest bit."""
    bits = f"{row:0{len(probabilities)}b}"
    return math.prod(p if bit == "1" else 1 - p for bit, p in zip(bits, probabilities, strict=True))


def weight(rows, probabilities):
    return sum(row_weight(row, probabilities) for row in range(2 ** len(probabilities)) if rows >> row & 1)


@given(st.integers(1, 14), st.integers(1, 15), st.floats(0.05, 0.95), st.floats(0.05, 0.95))
def test_without_an_additive_formula_the_loss_is_a_conditional_probability(core, condition, w, l):  # noqa: E741
    if core & condition in (0, condition):
        return  # nothing for the winner, or nothing against it
    formulas = [infix(Structure(PAIR, rows, 0).sides()[0]) for rows in (core, condition)]
    objective = FormulaObjective(formula=formulas[0], condition=formulas[1])
    chance = weight(core & condition, (w, l)) / weight(condition, (w, l))
    logs = [torch.tensor([p], dtype=torch.float64).log() for p in (w, l)]
    assert objective(pair_logps(*logs)).item() == pytest.approx(-math.log(chance), abs=1e-9)


tables = st.integers(1, 2**16 - 1)


@settings(max_examples=60, deadline=None)
@given(tables, tables, st.lists(st.floats(0.01, 0.99), min_size=4, max_size=4))
def test_any_structure_counts_the_rows_one_by_one(top, bottom, shares):
    whole = Structure((W, L, REF_W, REF_L), top, bottom)
    if top == bottom or not any(atom.model == "M" for side in ratio(whole) for atom in atoms_of(side)):
        return
    formulas = {"formula": infix(whole.weakest_core().formula), "condition": infix(whole.condition())}
    objective = FormulaObjective(**formulas, additive=infix(whole.additive()))
    leaves = [torch.tensor([p], dtype=torch.float64).log() for p in shares]
    rho = objective.score(pair_logps(*leaves[:2]), pair_logps(*leaves[2:])).item()
    assert rho == pytest.approx(math.log(weight(top, shares) / weight(bottom, shares)), abs=1e-9)


@settings(max_examples=25, deadline=None)
@given(tables, tables)
def test_any_structure_is_finite_at_extremes(top, bottom):
    whole = Structure((W, L, REF_W, REF_L), top, bottom)
    points = torch.tensor(list(product(EXTREMES, repeat=4)))
    leaves = [points[:, k].clone().requires_grad_() for k in range(4)]
    try:
        objective = FormulaObjective(
            formula=infix(whole.weakest_core().formula),
            condition=infix(whole.condition()),
            additive=infix(whole.additive()),
        )
    except ValueError:
        return  # a constant, or nothing of the policy
    losses = objective(pair_logps(*leaves[:2]), pair_logps(*leaves[2:]))
    losses.sum().backward()
    assert torch.isfinite(losses).all()
    assert all(leaf.grad is None or torch.isfinite(leaf.grad).all() for leaf in leaves)


def test_an_objective_declares_what_it_reads():
    plain = FormulaObjective(formula="M(w)")
    assert (plain.needs, plain.reads, plain.reward_scale) == ((), ("chosen",), 1.0)
    asks = FormulaObjective(formula="M(l) & Ref(w) -> M(w)", length_normalised=True, beta=0.5)
    assert asks.needs == ("reference", "lengths")
    assert asks.reads == ("chosen", "rejected")
    assert (asks.reward_scale, asks.mean_rewards, asks.own_name) == (0.5, True, "M(l) & Ref(w) -> M(w)")
    judged = FormulaObjective(formula="M(l) & Score(l) -> M(w)", link="hinge", beta=0.0)
    assert judged.needs == ("scores",)
    ((mask, says),) = judged.score_faults(torch.tensor([0.5, 0.0]), torch.tensor([1.0, 0.5]))
    assert mask.tolist() == [False, True]
    assert "probabilities" in says


def test_scores_and_constants_are_weighed():
    objective = FormulaObjective(formula="Score(w) & Const(0.25) & M(w)", condition="true")
    w = torch.tensor([0.5], dtype=torch.float64)
    scores = {"chosen_scores": torch.tensor([0.8]), "rejected_scores": torch.tensor([0.1])}
    p = 0.8 * 0.25 * 0.5
    found = objective.score(pair_logps(w.log(), w.log(), **scores), None)
    assert found.item() == pytest.approx(math.log(p / (1 - p)), abs=1e-6)
    with pytest.raises(ValueError, match="chosen_score and rejected_score"):
        objective.score(pair_logps(w.log(), w.log()), None)


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"formula": "M(l) ->"}, "formula: the formula ends"),
        ({"formula": "M(w)", "condition": "M(w"}, "condition: a parenthesis is not closed"),
        ({"formula": "M(y3) -> M(w)"}, r"the atom M\(y3\), whose probability training does not know"),
        ({"formula": "M(w)", "condition": "Safe(w)"}, r"^condition has the atom Safe\(w\)"),
        ({"formula": "M(w)", "additive": "Ref2(l)"}, r"^additive has the atom Ref2\(l\)"),
        ({"formula": "M(w)", "additive": "~"}, "^additive: the formula ends"),
        ({"formula": "Ref(w) -> Ref(l)"}, "no probability of the policy"),
        ({"formula": "Score(w) & Const(0.5)"}, "no probability of the policy"),
        ({"formula": "Ref(w)", "condition": "M(w)"}, "no probability of the policy"),
        ({"formula": "M(w)", "condition": "false"}, "counts nothing for the winner"),
        ({"formula": "M(w)", "condition": "M(w)"}, "counts nothing against the winner"),
        ({"formula": "M(w)", "additive": "true"}, "counts the same rows"),
        ({"formula": "M(w)", "link": "cubic"}, "link must be one of"),
        ({"formula": "M(w)", "beta": 0.0}, "beta must be greater than 0"),
        ({"formula": "M(w)", "beta": math.nan}, "beta must be greater than 0"),
        ({"formula": "M(w)", "link": "hinge", "beta": -0.1}, "beta must be at least 0"),
        ({"formula": "M(w)", "margin": math.inf}, "margin must be finite"),
    ],
)
def test_what_cannot_be_trained_is_refused(settings, says):
    with pytest.raises(ValueError, match=says):
        FormulaObjective(**settings)


def test_certain_constants_are_no_atoms():
    assert FormulaObjective(formula="M(w) & Const(1)").structure == Structure.of(parse("M(w)"))


def test_atoms_that_do_not_matter_need_nothing():
    assert not FormulaObjective(formula="M(w) & (Ref(l) | ~Ref(l))").needs_reference
    shared = FormulaObjective(formula="M(w)", condition="Ref(w) & Score(l)")  # a factor above and below the line
    assert (shared.needs, shared.reads) == ((), ("chosen",))
    assert shared.score(pair_logps(*2 * [torch.tensor([0.2]).log()]), None).item() == pytest.approx(math.log(0.25))
    assert FormulaObjective(formula="M(w)").structure == Structure.of(parse("M(w)"))
