import pytest
import torch

from align.logic.formula import REF_L, REF_W, Atom, L, W
from align.logic.landscape import landscape
from align.logic.parsing import parse
from align.logic.source import latex_source, torch_source, variable
from align.logic.structure import Structure
from tests.logic.test_compiled import batch, of_node


@pytest.mark.parametrize("link", ["logistic", "squared", "hinge"])
@pytest.mark.parametrize("which", ["sixteen", "reference"])
def test_the_code_that_is_printed_computes_the_loss_that_trains(which, link):
    policy, reference, leaves = batch()
    logs = dict(zip((W, L, REF_W, REF_L), leaves, strict=True))
    for node in landscape(which).nodes:
        space = {}
        objective = of_node(node, link=link, beta=0.7, margin=0.2)
        exec(torch_source(objective.structure, link, 0.7, 0.2), space)
        found = space["loss"](*(logs[atom] for atom in objective.structure.atoms))
        expected = objective(policy, reference)
        assert torch.equal(found, expected), node.name
        given = {"allow_unused": True, "materialize_grads": True}
        slopes, theirs = (torch.autograd.grad(losses.sum(), leaves, **given) for losses in (found, expected))
        assert all(torch.equal(a, b) for a, b in zip(slopes, theirs, strict=True)), node.name


def test_constants_and_atoms_of_ones_own_are_written():
    source = torch_source(Structure.of(parse("M(y3) & Const(0.25) -> M(w)")))
    space = {}
    exec(source, space)
    logs = torch.tensor([0.5], dtype=torch.float64).log()
    top = 1 - 0.5 * 0.25 * 0.5
    found = space["loss"](logs, logs)
    assert torch.exp(-found).item() == pytest.approx(top, abs=1e-6)
    assert [variable(atom) for atom in (W, REF_L, Atom("Safe"), Atom("Judge", "w"))] == (
        ["log_w", "log_ref_l", "log_safe", "log_judge_w"]
    )


def test_latex_has_fraction_and_link():
    orpo = landscape().node("ORPO").structure
    assert r"\frac{p_{w}(1 - p_{l})}{p_{l}(1 - p_{w})}" in latex_source(orpo)
    assert r"\gamma" not in latex_source(orpo)
    assert r"\gamma" in latex_source(orpo, "hinge", 0.5)
    dpo = landscape("reference").node("CPO").structure
    assert r"p_{\mathrm{ref},l}" in latex_source(dpo, "squared")


@pytest.mark.parametrize("log", [0.0, -1e-7, -1.0, -100.0, -1e4])
def test_the_code_that_is_printed_is_finite_at_extremes(log):
    for node in landscape().nodes:
        space = {}
        exec(torch_source(node.structure), space)
        logs = [torch.tensor([log, -1.0], requires_grad=True) for _ in node.structure.atoms]
        losses = space["loss"](*logs)
        losses.sum().backward()
        assert torch.isfinite(losses).all(), node.name
        assert all(leaf.grad is None or torch.isfinite(leaf.grad).all() for leaf in logs), node.name


def test_what_depends_on_no_probability_is_no_code():
    with pytest.raises(ValueError, match="depends on no probability"):
        torch_source(Structure.of(parse("Const(0.5)")))
    with pytest.raises(ValueError, match="differ in capitals alone"):
        torch_source(Structure.of(parse("Safe(w) & ~safe(w) | M(w)")))
