"""A loss as a sum of terms: each a link of a score, told apart by its form.

A link is named ``logistic`` for -log sigmoid(z), ``hinge`` for max(0, -z), ``squared`` for z^2, ``sigmoid`` for
sigmoid(-z), ``linear`` for -z; ``smoothed`` is a logistic one whose labels may be wrong. z is a score minus a margin.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import sympy

from align.logic.symbols import logsigmoid, probabilities, relu, sigmoid, symbol

DECREASING = {"logistic": True, "hinge": True, "linear": True, "sigmoid": True, "squared": False}
"""Links, and whether a larger score always costs less, which the order of losses by entailment needs."""


@dataclass(frozen=True, slots=True)
class Term:
    """A term of a loss.

    Attributes:
        link: its name; ``other`` for one that has none.
        weight: what the link is multiplied by.
        score: what the link is of, oriented so that the chosen counts for it; for ``other`` the whole term.
        smoothing: share of labels taken to be wrong, for ``smoothed``; negative where wrong labels are made up for.
    """

    link: str
    weight: sympy.Expr
    score: sympy.Expr
    smoothing: sympy.Expr | None = None

    @property
    def decreasing(self) -> bool | None:
        """Whether a larger score always costs less; None where that is not known."""
        if self.smoothing is not None:
            return bool(self.smoothing <= 0)
        return DECREASING.get(self.link)


def terms_of(loss: sympy.Expr) -> list[Term]:
    """Return the terms of a loss, those that are linear in log-probabilities as one.

    Examples:
        >>> w, l = symbol("w"), symbol("l")
        >>> [term.link for term in terms_of(-logsigmoid(sympy.log(w / l)) - sympy.log(w) / 5)]
        ['logistic', 'linear']
    """
    found, linear = [], sympy.Integer(0)
    loss = loss.replace(lambda e: isinstance(e, sympy.log) and e.args[0].has(sigmoid), _log_of_sigmoid)
    for term in _flat(loss):
        if not probabilities(term):
            continue
        weight, rest = term.as_independent(*probabilities(term), as_Add=False)
        known = _linked(weight, rest)
        if known is not None:
            found.append(known)
        elif rest.has(logsigmoid, sigmoid, relu) or not rest.has(sympy.log):
            found.append(Term("other", sympy.Integer(1), term))
        else:
            linear += term
    if linear != 0:
        found.append(Term("linear", sympy.Integer(1), -linear))
    return sorted(_smoothed(found), key=_place)


def _log_of_sigmoid(log: sympy.Expr) -> sympy.Expr:
    """Return log sigmoid(x), and log(1 - sigmoid(x)), as the function that links are told by."""
    inner = log.args[0]
    if isinstance(inner, sigmoid):
        return logsigmoid(inner.args[0])
    complement = sympy.simplify(1 - inner)
    return logsigmoid(-complement.args[0]) if isinstance(complement, sigmoid) else log


def _place(term: Term) -> int:
    """Return where a term stands: what compares the two sides, what reads the chosen, what reads the rejected."""
    reads = (symbol("w") in term.score.free_symbols, symbol("l") in term.score.free_symbols)
    return {(True, True): 0, (True, False): 1, (False, True): 2}.get(reads, 3)


def _flat(loss: sympy.Expr) -> Iterator[sympy.Expr]:
    """Yield the terms of a sum, with constant factors multiplied in."""
    loss = loss.replace(lambda e: e.is_Mul and e.has(sympy.log), _distributed) if not loss.is_Add else loss
    for term in sympy.Add.make_args(loss):
        spread = _distributed(term)
        if spread.is_Add:
            yield from _flat(spread)
        else:
            yield spread


def _distributed(term: sympy.Expr) -> sympy.Expr:
    if not probabilities(term):
        return term
    constant, rest = term.as_independent(*probabilities(term), as_Add=False)
    return sympy.Add(*(constant * part for part in rest.args)) if rest.is_Add else term


def _linked(weight: sympy.Expr, rest: sympy.Expr) -> Term | None:
    """Return the term of a known link."""
    if isinstance(rest, logsigmoid):
        return Term("logistic", -weight, rest.args[0])
    if isinstance(rest, relu):
        return Term("hinge", weight, -rest.args[0])
    if isinstance(rest, sigmoid):  # -sigmoid(z) is sigmoid(-z) but for a constant
        return Term("sigmoid", *((-weight, rest.args[0]) if weight.is_negative else (weight, -rest.args[0])))
    if rest.is_Pow and rest.exp == 2 and rest.base.has(sympy.log):
        return Term("squared", weight, oriented(rest.base))
    return None


def oriented(score: sympy.Expr) -> sympy.Expr:
    """Return the score or its negative: whichever grows with the chosen, or falls with the rejected."""
    for name, sign in (("w", 1), ("l", -1)):
        slope = score.diff(symbol(name)).subs({p: sympy.Rational(1, 3) for p in probabilities(score)})
        slope = slope.subs(dict.fromkeys(slope.free_symbols, 1))
        if slope.is_real and slope != 0:
            return score if slope * sign > 0 else -score
    return score


def _smoothed(found: list[Term]) -> list[Term]:
    """Return the terms with a logistic link of a score and a weaker one of its negative as one smoothed term."""
    merged = list(found)
    for mine in found:
        for other in found:
            opposite = mine.link == other.link == "logistic" and sympy.expand(mine.score + other.score) == 0
            whole = mine.weight + other.weight
            if opposite and mine in merged and other in merged and mine.weight.is_number and mine.weight > other.weight:
                merged.remove(other)
                merged[merged.index(mine)] = Term("smoothed", whole, mine.score, other.weight / whole)
    return [_of_its_own(term) if term.link in _WRITTEN and term.weight.is_negative else term for term in merged]


_WRITTEN: Mapping[str, Callable[[sympy.Expr], sympy.Expr]] = {
    "logistic": lambda z: -logsigmoid(z),
    "hinge": lambda z: relu(-z),
    "squared": lambda z: z**2,
}


def _of_its_own(term: Term) -> Term:
    """Return a link that is to be made large as what it is: no link that is known."""
    return Term("other", sympy.Integer(1), term.weight * _WRITTEN[term.link](term.score))
