import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

from align.logic.compiled import FormulaObjective
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
    expected = math.log1p(math.exp(-rho))
    assert objective(pair_logps(w, l)).item() == pytest.approx(expected, abs=1e-11)
    assert not objective.needs_reference


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


@pytest.mark.parametrize("name", SIXTEEN)
def test_gradients_check_numerically(name):
    objective = of_node(landscape("reference").node(name))
    _, _, leaves = batch(rows=3)

    def losses(w, l, ref_w, ref_l):  # noqa: E741
        return objective(pair_logps(w, l), pair_logps(ref_w, ref_l))

    assert torch.autograd.gradcheck(losses, [leaf.detach().requires_grad_() for leaf in leaves])


@given(st.integers(1, 14), st.integers(1, 15))
def test_without_an_additive_formula_the_loss_is_a_conditional_probability(core, condition):
    structure = Structure(PAIR, core & condition, ~core & condition & 15)
    if not structure.top or not structure.bottom:
        return
    core_text, condition_text = infix(structure.weakest_core().formula), infix(structure.condition())
    objective = FormulaObjective(formula=core_text, condition=condition_text)
    w, l = 0.35, 0.6  # noqa: E741
    weights = [(1 - w) * (1 - l), (1 - w) * l, w * (1 - l), w * l]
    holds = sum(p for row, p in enumerate(weights) if core & condition >> row & 1 and condition >> row & 1)
    given_ = sum(p for row, p in enumerate(weights) if condition >> row & 1)
    logs = [torch.tensor([p], dtype=torch.float64).log() for p in (w, l)]
    top = sum(p for row, p in enumerate(weights) if structure.top >> row & 1)
    assert objective(pair_logps(*logs)).item() == pytest.approx(-math.log(top / given_), abs=1e-10)
    assert holds <= given_


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
        ({"formula": "M(w)", "condition": "false"}, "counts nothing for the winner"),
        ({"formula": "M(w)", "condition": "M(w)"}, "counts nothing against the winner"),
        ({"formula": "M(w)", "additive": "true"}, "counts the same rows"),
        ({"formula": "M(w)", "link": "cubic"}, "link must be one of"),
        ({"formula": "M(w)", "beta": 0.0}, "beta must be greater than 0"),
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
    assert FormulaObjective(formula="M(w)").structure == Structure.of(parse("M(w)"))
