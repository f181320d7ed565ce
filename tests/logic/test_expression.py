import pytest
import sympy

from align.logic.expression import kind_of, read_expression
from align.logic.parsing import FormulaError
from align.logic.symbols import logsigmoid, relu, symbol

W, L, RW, RL = (symbol(name) for name in ("w", "l", "ref_w", "ref_l"))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("log(w/l)", sympy.log(W / L)),
        ("log(w*rl/(rw*l))", sympy.log(W * RL / (RW * L))),
        ("2*w^2 - -l", 2 * W**2 + L),
        ("w**-1", 1 / W),
        ("-w^2", -(W**2)),
        ("0.1*w + 1e-2", W / 10 + sympy.Rational(1, 100)),
        ("β*log(w) − γ", symbol("beta") * sympy.log(W) - symbol("gamma")),
        ("logit(w)", sympy.log(W / (1 - W))),
        ("log(odds(w))", sympy.log(W / (1 - W))),
        ("log1p(-w) + expm1(l)", sympy.log(1 - W) + sympy.exp(L) - 1),
        ("softplus(log(w))", -logsigmoid(-sympy.log(W))),
        ("max(0, 1 - log(w))", relu(1 - sympy.log(W))),
        ("hinge(log(w))", relu(1 - sympy.log(W))),
        ("square(log(w))", sympy.log(W) ** 2),
    ],
)
def test_arithmetic_is_read(text, expected):
    assert sympy.simplify(read_expression(text) - expected) == 0


@pytest.mark.parametrize(
    ("text", "problem", "at"),
    [
        ("log(w/", "ends where a part", 6),
        ("log(w) l", "an operator is missing before 'l'", 7),
        ("lgo(w)", "did you mean 'log'?", 0),
        ("log(wx)", "no quantity 'wx'; did you mean 'w'?", 4),
        ("log(w/l))", "an operator is missing before ')'", 8),
        ("w $ l", "'$' is no part of an expression", 2),
        ("__import__('os')", '"\'" is no part of an expression', 11),
        ("w.real", "'.' is no part", 1),
        ("(w", "a parenthesis is not closed", 0),
        ("w/0", "a division by 0", 1),
        ("max(w, l)", "max takes 0 and one more", 0),
        ("log(w, l)", "log takes one number, got 2", 0),
        ("__import__(w)", "no function '__import__'", 0),
        ("w.__class__", "'.' is no part", 1),
        ("lambda: w", "':' is no part", 6),
        ("w if l else 1", "an operator is missing before 'if'", 2),
        ("w[0]", "'[' is no part", 1),
        ("w^65", "an exponent beyond 64", 1),
        ("w^-65", "an exponent beyond 64", 1),
        ("1e999", "is too large a number", 0),
        ("2*exp(701)", "the exponential of a number beyond 700", 2),
        ("exp(exp(exp(exp(20))))", "the exponential of a number beyond 700", 8),
        ("exec(w)", "no function 'exec'", 0),
        ("", "ends where a part", 0),
        ("log(w l)", "an operator or a closing parenthesis", 6),
    ],
)
def test_mistakes_are_pointed_at_and_nothing_is_evaluated(text, problem, at):
    with pytest.raises(FormulaError) as found:
        read_expression(text)
    assert problem in str(found.value)
    assert found.value.at == at


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("-logsigmoid(log(w/l))", "loss"),
        ("max(0, 1 - log(w/l))", "loss"),
        ("(log(w/l) - 5)^2", "loss"),
        ("log(w/l)", "score"),
        ("-log(w) - 0.5*log(1-l)", "loss"),
        ("log(l)", "loss"),
        ("log(w/l) - 50*max(0, log(ref_w/w))", "score"),
        ("max(0, 1 - log(w)) + max(0, 1 + log(l))", "loss"),
        ("max(0, 1 - log(w/l)) - 0.1*log(w)", "loss"),
        ("1 - sigmoid(log(w/l))", "loss"),
        ("w/l", "ratio"),
        ("w*(1-l)/(l*(1-w))", "ratio"),
    ],
)
def test_kinds_are_told_by_their_form(text, kind):
    assert kind_of(read_expression(text)) == kind
