"""The letters that losses are written in when they are taken apart, as sympy symbols, and the atoms they weigh.

``w, l, ref_w, ref_l`` are probabilities of chosen and rejected under policy and reference; ``n_w, n_l`` lengths in
tokens; everything else that a loss may read (scores, a reference point, settings) is a constant of the pair.
"""

from collections.abc import Mapping
from functools import cache
from types import MappingProxyType

import sympy

from align.logic.formula import REF_L, REF_W, Atom, L, W

ATOMS: Mapping[str, Atom] = MappingProxyType({"w": W, "l": L, "ref_w": REF_W, "ref_l": REF_L})
"""Letters of probabilities, and their atoms."""

LENGTHS = ("n_w", "n_l")
"""Lengths of completions, in tokens."""

CONSTANTS = ("q_w", "q_l", "z")
"""Scores of completions from the data, and KTO's reference point."""

MEANINGS: Mapping[str, str] = MappingProxyType(
    {
        "q_w": "score of the chosen",
        "q_l": "score of the rejected",
        "z": "mean log-ratio of completions of other prompts",
        "n_w": "tokens of the chosen",
        "n_l": "tokens of the rejected",
    }
)
"""What letters stand for that are no probabilities."""

logsigmoid = sympy.Function("logsigmoid", real=True)
sigmoid = sympy.Function("sigmoid", positive=True)
relu = sympy.Function("relu", nonnegative=True)
stop_gradient = sympy.Function("stop_gradient", real=True)
"""Functions that links are made of, and what has no gradient; kept as they are, so that links can be recognised."""


@cache
def symbol(name: str) -> sympy.Symbol:
    """Return the symbol of a letter; all are positive, so that logarithms come apart."""
    return sympy.Symbol(name, positive=True)


def probabilities(expression: sympy.Expr) -> list[sympy.Symbol]:
    """Return the probabilities that an expression depends on, in the order of truth tables."""
    known = [symbol(name) for name in ATOMS]
    free = expression.free_symbols
    others = sorted((s for s in free if s.name.startswith(tuple(f"{n}_" for n in ATOMS)) and s not in known), key=str)
    return [s for s in (*known, *others) if s in free and s.name not in (*LENGTHS, *CONSTANTS)]


def number(value: float) -> sympy.Expr:
    """Return a number as the fraction that its shortest decimal form is: 0.1 is 1/10."""
    return sympy.Integer(value) if isinstance(value, int) else sympy.Rational(repr(float(value)))


def unfolded(expression: sympy.Expr) -> sympy.Expr:
    """Return the expression with sigmoids written as exponentials."""
    one = sympy.Integer(1)
    written = expression.replace(logsigmoid, lambda x: -sympy.log(one + sympy.exp(-x)))
    return written.replace(sigmoid, lambda x: one / (one + sympy.exp(-x)))


def spelled(expression: sympy.Expr) -> str:
    """Return an expression as text, with short decimals for numbers."""
    short = {n: sympy.Float(n, 6) for n in expression.atoms(sympy.Rational) if n.q > 1}
    return str(sympy.sstr(expression.xreplace(short), full_prec=False)).replace("**", "^")
