import math

import pytest
import torch

from align.logic.formula import REF_L, REF_W, Atom, L, W
from align.logic.landscape import landscape
from align.logic.parsing import parse
from align.logic.slopes import link_at, log_ratio_at
from align.logic.structure import Structure
from tests.logic.facts import SIXTEEN
from tests.logic.test_compiled import batch, of_node


@pytest.mark.parametrize("name", SIXTEEN)
def test_values_and_slopes_are_those_of_the_loss_that_trains(name):
    node = landscape("reference").node(name)
    policy, reference, leaves = batch(rows=1)
    score = of_node(node).score(policy, reference)
    expected = torch.autograd.grad(score.sum(), leaves, allow_unused=True)
    found = log_ratio_at(node.structure, {a: x.item() for a, x in zip((W, L, REF_W, REF_L), leaves, strict=True)})
    assert found.value == pytest.approx(score.item(), rel=1e-12)
    for atom, slope in zip((W, L, REF_W, REF_L), expected, strict=True):
        assert found.by.get(atom, 0.0) == pytest.approx(0.0 if slope is None else slope.item(), abs=1e-12)


def test_slopes_are_finite_where_a_response_is_certain():
    found = log_ratio_at(landscape().node("ORPO").structure, {W: 0.0, L: -1e4})
    assert math.isfinite(found.value)
    assert found.by[W] == pytest.approx(1e8, rel=1e-6)


def test_constants_have_no_slope():
    structure = Structure.of(parse("M(w) & Const(0.25)"))
    found = log_ratio_at(structure, {W: math.log(0.5)})
    assert found.value == pytest.approx(math.log(0.125 / 0.875))
    assert list(found.by) == [W]
    assert Atom("Const", "0.25") not in found.by


@pytest.mark.parametrize("link", ["logistic", "squared", "hinge"])
@pytest.mark.parametrize("z", [-800.0, -2.0, 0.3, 5.0, 900.0])
def test_links_and_their_slopes_are_those_of_torch(link, z):
    x = torch.tensor(z, dtype=torch.float64, requires_grad=True)
    beta = 0.7
    losses = {
        "logistic": -torch.nn.functional.logsigmoid(beta * x),
        "squared": (x - 0.5 / beta).square(),
        "hinge": torch.relu(beta - x),
    }
    losses[link].backward()
    loss, slope = link_at(link, z, beta)
    assert loss == pytest.approx(losses[link].item(), rel=1e-12, abs=1e-300)
    assert slope == pytest.approx(x.grad.item(), rel=1e-9, abs=1e-290)
    with pytest.raises(ValueError, match="cubic"):
        link_at("cubic", 0.0, 1.0)
