import math

import numpy as np
import pytest
import sympy
import torch
from torch.nn import functional as F

from align.logic.symbols import logsigmoid, probabilities, relu, sigmoid, stop_gradient, symbol
from align.logic.trace import Symbol, TraceError
from align.objectives.numerics import bounded_exp, log1mexp, log_odds

W, L = symbol("w"), symbol("l")


def named(name, probability):
    expressions = np.array([sympy.log(symbol(name))], dtype=object)
    return Symbol.of(torch.tensor([math.log(probability)], dtype=torch.float64), expressions)


@pytest.fixture
def w():
    return named("w", 0.6)


@pytest.fixture
def l():  # noqa: E743
    return named("l", 0.3)


a, b = sympy.log(W), sympy.log(L)
CASES = {
    "arithmetic": (lambda w, l: 2 * w - l / 4 + 1 - (-w) * 0.5, 2 * a - b / 4 + 1 + a / 2),  # noqa: E741
    "reflected": (lambda w, l: 1 - w + 3 / (l + 1), 1 - a + 3 / (b + 1)),  # noqa: E741
    "powers": (lambda w, l: w**2 + l.square() + (w - l).pow(2), a**2 + b**2 + (a - b) ** 2),  # noqa: E741
    "exponentials": (lambda w, l: w.exp() + torch.expm1(l) + torch.log1p(l.exp()), W + L - 1 + sympy.log(1 + L)),  # noqa: E741
    "links": (
        lambda w, l: -F.logsigmoid(w - l) + torch.sigmoid(w) + F.softplus(l),  # noqa: E741
        -logsigmoid(a - b) + sigmoid(a) - logsigmoid(-b),
    ),
    "hinges": (lambda w, l: torch.relu(1 - w) + torch.clamp(1 - l, min=0), relu(1 - a) + relu(1 - b)),  # noqa: E741
    "maximum": (lambda w, l: torch.maximum(1 - w, torch.zeros(1, dtype=torch.float64)), relu(1 - a)),  # noqa: E741
    "maximum, turned": (lambda w, l: torch.maximum(torch.zeros(1, dtype=torch.float64), 1 - w), relu(1 - a)),  # noqa: E741
    "minimum": (lambda w, l: torch.minimum(w - 1, torch.zeros(1, dtype=torch.float64)), -relu(1 - a)),  # noqa: E741
    "kept below 0": (lambda w, l: (w - 1).clamp(max=0) + (l - 1).clamp_max(0), -relu(1 - a) - relu(1 - b)),  # noqa: E741
    "kept above 0": (lambda w, l: (1 - w).clamp_min(0) + torch.clip(1 - l, 0), relu(1 - a) + relu(1 - b)),  # noqa: E741
    "kept below 5": (lambda w, l: w.clamp_max(5.0) + torch.clamp_max(l, max=-3.0), a - 3),  # noqa: E741
    "smaller": (lambda w, l: torch.minimum(w, l), b),  # noqa: E741
    "sharper": (lambda w, l: F.softplus(w, beta=2.0), -logsigmoid(-2 * a) / 2),  # noqa: E741
    "softer": (lambda w, l: F.softplus(l, 0.5), -2 * logsigmoid(-b / 2)),  # noqa: E741
    "transposed": (lambda w, l: torch.stack([torch.cat([w, l]), torch.cat([2 * w, 3 * l])]).T[0, 1:], 2 * a),  # noqa: E741
    "larger": (lambda w, l: torch.maximum(w, l), a),  # noqa: E741
    "clamped": (lambda w, l: w.clamp(min=-10.0, max=-1e-8), a),  # noqa: E741
    "bounded": (lambda w, l: w.clamp(min=-0.1), sympy.Rational(-1, 10)),  # noqa: E741
    "chosen": (lambda w, l: torch.where(w > l, w, l * 2), a),  # noqa: E741
    "stacked": (lambda w, l: torch.stack([w, l]).sum(0), a + b),  # noqa: E741
    "joined": (lambda w, l: torch.cat([w, l]).mean().reshape(1), (a + b) / 2),  # noqa: E741
    "logaddexp": (lambda w, l: torch.logaddexp(w, l), sympy.log(W + L)),  # noqa: E741
    "logsumexp": (lambda w, l: torch.stack([w, l], 1).logsumexp(1), sympy.log(W + L)),  # noqa: E741
    "picked": (lambda w, l: torch.cat([w, l])[torch.tensor([1])], b),  # noqa: E741
    "sorted": (lambda w, l: torch.cat([w, l]).sort().values[:1], b),  # noqa: E741
    "masked": (lambda w, l: w.masked_fill(torch.tensor([True]), -1.0) + l, b - 1),  # noqa: E741
    "cloned": (lambda w, l: w.clone().to(torch.float64) + l.unsqueeze(1).squeeze(1), a + b),  # noqa: E741
    "without": (lambda w, l: torch.zeros_like(w) + l, b),  # noqa: E741
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_computed_is_written_down(name, w, l):  # noqa: E741
    compute, expected = CASES[name]
    found = compute(w, l)
    assert sympy.simplify(found.expressions.flatten()[0] - expected) == 0
    value = expected.subs({W: 0.6, L: 0.3})
    value = value.replace(relu, lambda x: sympy.Max(0, x)).replace(sigmoid, lambda x: 1 / (1 + sympy.exp(-x)))
    value = value.replace(logsigmoid, lambda x: -sympy.log(1 + sympy.exp(-x)))
    assert float(found.flatten()[0]) == pytest.approx(float(value), rel=1e-12)


def test_our_own_stable_functions_are_read_as_what_they_are(w):
    assert sympy.simplify(log1mexp(w).expressions[0] - sympy.log(1 - W)) == 0
    assert sympy.simplify(log_odds(named("w", 0.2)).expressions[0] - sympy.log(W) + sympy.log(1 - W)) == 0
    assert bounded_exp(w).expressions[0] == W


def test_plain_answers_stay_plain(w):
    assert w.shape == (1,)
    assert w.dtype == torch.float64
    assert bool((w < 0).all())
    assert type(w < 0) is torch.Tensor
    assert isinstance(w, torch.Tensor)


def test_unknown_operations_are_refused_by_name(w, l):  # noqa: E741
    with pytest.raises(TraceError, match=r"'erf'.*known are"):
        torch.erf(w - l)
    with pytest.raises(TraceError, match="'maximum'"):
        torch.maximum(torch.cat([w, l]), w)


def test_what_has_no_gradient_says_so(w):
    assert w.detach().expressions[0] == stop_gradient(a)
    assert w.data.expressions[0] == stop_gradient(a)
    with torch.no_grad():
        halved = w / 2
    assert halved.expressions[0] == stop_gradient(a / 2)


@pytest.mark.parametrize(
    ("compute", "says"),
    [
        (lambda w, l: torch.add(w, l, alpha=-1), "'add' with alpha"),  # noqa: E741
        (lambda w, l: torch.sub(w, l, alpha=2), "'sub' with alpha"),  # noqa: E741
        (lambda w, l: torch.sub(input=w, other=l), "'sub' with input, other"),  # noqa: E741
        (lambda w, l: torch.div(w, l, rounding_mode="floor"), "'div' with rounding_mode"),  # noqa: E741
        (lambda w, l: torch.pow(w, exponent=2), "'pow' with exponent"),  # noqa: E741
        (lambda w, l: torch.maximum(w, other=l), "'maximum' with arguments by name"),  # noqa: E741
        (lambda w, l: w.clone().sub_(l), "'sub_'"),  # noqa: E741
        (lambda w, l: w.abs(), "'abs'"),  # noqa: E741
    ],
)
def test_arguments_that_are_not_read_are_refused_and_not_passed_over(compute, says, w, l):  # noqa: E741
    with pytest.raises(TraceError, match=says):
        compute(w, l)


def test_constants_do_not_bend():
    z = Symbol.of(torch.tensor(0.1), np.array(symbol("z"), dtype=object))
    assert z.clamp(min=0.0).expressions.item() == symbol("z")
    assert not probabilities(symbol("z"))
