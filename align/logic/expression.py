"""Losses written as text: arithmetic of w, l, ref_w, ref_l, read by a parser of its own; nothing is ever evaluated."""

import math
import re
from collections.abc import Callable, Mapping
from difflib import get_close_matches

import sympy

from align.logic.loss_terms import oriented
from align.logic.reading import Reader, Token
from align.logic.symbols import ATOMS, CONSTANTS, LENGTHS, logsigmoid, number, relu, sigmoid, symbol

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.?\d*(?:[eE][+-]?\d+)?|\.\d+)|(?P<name>[^\W\d]\w*)|(?P<sign>\*\*|[-+*/^(),−·]))"
)
MOST_EXPONENT = 64
"""The largest exponent that is worked out."""
MOST_NATS = 700
"""The largest number whose exponential is worked out."""

SETTINGS = ("beta", "gamma", "tau", "alpha", "delta", "lam", "lambda", "epsilon", "margin", "target")
"""Names of settings that an expression may have; each is a positive constant."""

_GREEK = {"β": "beta", "γ": "gamma", "τ": "tau", "α": "alpha", "δ": "delta", "λ": "lam", "ε": "epsilon"}
_ALIASES = {"rw": "ref_w", "rl": "ref_l", "lambda": "lam", **_GREEK}
NAMES = (*ATOMS, *LENGTHS, *CONSTANTS, *SETTINGS, *_ALIASES)
"""Everything that an expression can name."""

FUNCTIONS: Mapping[str, Callable[[sympy.Expr], sympy.Expr]] = {
    "log": sympy.log,
    "ln": sympy.log,
    "exp": sympy.exp,
    "sqrt": sympy.sqrt,
    "square": lambda x: x**2,
    "log1p": lambda x: sympy.log(1 + x),
    "expm1": lambda x: sympy.exp(x) - 1,
    "log1mexp": lambda x: sympy.log(1 - sympy.exp(x)),
    "odds": lambda x: x / (1 - x),
    "logit": lambda x: sympy.log(x / (1 - x)),
    "logodds": lambda x: sympy.log(x / (1 - x)),
    "sigmoid": sigmoid,
    "sigma": sigmoid,
    "logsigmoid": logsigmoid,
    "log_sigmoid": logsigmoid,
    "softplus": lambda x: -logsigmoid(-x),
    "relu": relu,
    "hinge": lambda x: relu(1 - x),
}
"""Functions of one number that an expression may call; ``max(0, x)`` beside them."""
_EXPONENTIALS = ("exp", "expm1", "log1mexp")


def read_expression(text: str) -> sympy.Expr:
    """Return the expression that a text spells.

    Raises:
        FormulaError: a ValueError that points at what is wrong.

    Examples:
        >>> read_expression("log(w/l) - gamma")
        -gamma + log(w/l)
    """
    return _Expression(text, _TOKEN, "an expression").whole()


def kind_of(expression: sympy.Expr) -> str:
    """Return what an expression is by its form: ``loss``, with a link; ``score``, with logarithms; else ``ratio``.

    What falls as the chosen becomes likelier is a loss too: ``-log(w)``.

    Examples:
        >>> kind_of(read_expression("-logsigmoid(log(w/l))")), kind_of(read_expression("w/l"))
        ('loss', 'ratio')
    """
    squares = [power for power in expression.atoms(sympy.Pow) if power.exp == 2 and power.base.has(sympy.log)]
    without_bends = expression.replace(relu, lambda _: sympy.Integer(0))
    if expression.has(logsigmoid, sigmoid) or squares or (expression.has(relu) and not without_bends.has(sympy.log)):
        return "loss"
    if not expression.has(sympy.log):
        return "ratio"
    return "score" if oriented(without_bends) == without_bends else "loss"


class _Expression(Reader):
    """Reads one expression from left to right."""

    def whole(self) -> sympy.Expr:
        found = self.sum()
        if self.next.kind != "end":
            self.fail(f"an operator is missing before {self.next.text!r}", self.next)
        return found

    def sum(self) -> sympy.Expr:
        found = self.product()
        while self.next.text in ("+", "-", "−"):
            sign = self.take().text
            found = found + self.product() if sign == "+" else found - self.product()
        return found

    def product(self) -> sympy.Expr:
        found = self.signed()
        while self.next.text in ("*", "/", "·"):
            sign = self.take()
            right = self.signed()
            if sign.text == "/" and right == 0:
                self.fail("a division by 0", sign)
            found = found / right if sign.text == "/" else found * right
        return found

    def signed(self) -> sympy.Expr:
        if self.next.text in ("-", "−", "+"):
            return self.signed() if self.take().text == "+" else -self.signed()
        return self.power()

    def power(self) -> sympy.Expr:
        base = self.primary()
        if self.next.text in ("**", "^"):
            sign = self.take()
            exponent = self.signed()
            if exponent.is_number and abs(exponent) > MOST_EXPONENT:
                self.fail(f"an exponent beyond {MOST_EXPONENT}", sign)
            return base**exponent
        return base

    def primary(self) -> sympy.Expr:
        token = self.take()
        if token.kind == "number":
            if not math.isfinite(float(token.text)):
                self.fail(f"{token.text} is too large a number", token)
            return number(float(token.text)) if re.search(r"[.eE]", token.text) else sympy.Integer(token.text)
        if token.text == "(":
            inner = self.sum()
            self.close(token)
            return inner
        if token.kind == "name":
            return self.call(token) if self.next.text == "(" else self.name(token)
        stray = f"a number, a name or a parenthesis should stand here, not {token.text!r}"
        return self.fail("the expression ends where a part of it should stand" if token.kind == "end" else stray, token)

    def name(self, token: Token) -> sympy.Expr:
        name = _ALIASES.get(token.text, token.text)
        if name not in NAMES:
            near = get_close_matches(token.text, [*NAMES, *FUNCTIONS], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(dict.fromkeys(NAMES))}"
            self.fail(f"no quantity {token.text!r}; {hint}", token)
        return symbol(name)

    def call(self, token: Token) -> sympy.Expr:
        opening = self.take()
        arguments = [self.sum()]
        while self.next.text == ",":
            self.take()
            arguments.append(self.sum())
        self.close(opening)
        if token.text == "max" and len(arguments) == 2 and 0 in arguments:
            arguments.remove(sympy.Integer(0))
            return relu(arguments[0])
        if token.text == "max":
            self.fail("max takes 0 and one more: max(0, x)", token)
        if token.text not in FUNCTIONS:
            near = get_close_matches(token.text, [*FUNCTIONS, "max"], n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(FUNCTIONS)}, max"
            self.fail(f"no function {token.text!r}; {hint}", token)
        if len(arguments) != 1:
            self.fail(f"{token.text} takes one number, got {len(arguments)}", token)
        if token.text in _EXPONENTIALS and arguments[0].is_number and abs(arguments[0]) > MOST_NATS:
            self.fail(f"the exponential of a number beyond {MOST_NATS}", token)
        return FUNCTIONS[token.text](arguments[0])
