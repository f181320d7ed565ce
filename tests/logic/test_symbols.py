import sympy

from align.logic.symbols import logsigmoid, number, probabilities, relu, sigmoid, spelled, symbol, unfolded


def test_letters_are_positive_and_one_each():
    assert symbol("w") is symbol("w")
    assert sympy.log(sympy.exp(sympy.log(symbol("w")))) == sympy.log(symbol("w"))


def test_probabilities_are_told_from_constants():
    letters = [symbol(name) for name in ("l", "ref_w", "w", "w_2", "n_w", "q_w", "z", "beta")]
    assert [p.name for p in probabilities(sympy.Add(*letters))] == ["w", "l", "ref_w", "w_2"]


def test_numbers_are_the_fractions_that_their_decimals_are():
    assert number(0.1) == sympy.Rational(1, 10)
    assert number(3) == 3
    assert number(1e-8) == sympy.Rational(1, 10**8)


def test_expressions_are_spelled_with_short_decimals():
    assert spelled(sympy.Rational(1, 20) * symbol("w") ** 2) == "0.05*w^2"
    assert spelled(sympy.Integer(3)) == "3"


def test_sigmoids_unfold():
    x = symbol("w")
    assert sympy.simplify(unfolded(sigmoid(x)) - 1 / (1 + sympy.exp(-x))) == 0
    assert sympy.simplify(sympy.exp(unfolded(logsigmoid(x))) - 1 / (1 + sympy.exp(-x))) == 0
    assert unfolded(relu(x)) == relu(x)
