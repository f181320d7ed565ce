"""From a score to what it counts: a log-ratio of polynomials of probabilities, each the weighted count of a formula.

A polynomial is a weighted model count of some formula just if it has no probability twice in a product and takes one
and the same value on all corners (probabilities 0 and 1) where it is not 0; those corners are the formula's models. The
common value of each side leaves the ratio as a margin.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import product

import sympy

from align.logic.formula import Atom, ordered
from align.logic.rows import row_number
from align.logic.structure import Structure
from align.logic.symbols import ATOMS, LENGTHS, probabilities, spelled, symbol, unfolded

MOST_COPIES = 4
"""Times a probability may stand in a product for copies of it to be proposed."""


class NoModelCountError(ValueError):
    """A score counts no models; the message says why, with the row and the value where there is one."""


@dataclass(frozen=True, slots=True)
class Reading:
    """A score as a structure.

    Attributes:
        structure: what is counted above and below the line.
        scale: what the log-ratio is multiplied by.
        margin: what is subtracted from it then: a number, or an expression of what is constant for a pair.
        normalised: whether probabilities are geometric means over tokens.
        notes: what was done to read it so.
    """

    structure: Structure
    scale: sympy.Expr
    margin: sympy.Expr
    normalised: bool
    notes: tuple[str, ...] = field(default=())


def read_score(score: sympy.Expr) -> Reading:
    """Return what a score counts.

    Raises:
        NoModelCountError: if it is no multiple of a log-ratio of model counts plus a constant.

    Examples:
        >>> w, l = symbol("w"), symbol("l")
        >>> found = read_score(sympy.log(w * (1 - l) / (l * (1 - w))) - 2)
        >>> found.structure.marks(), found.margin
        (('neither', 'win', 'lose', 'neither'), 2)
    """
    score, normalised = _of_means(score)
    terms, constant = _logarithms(score)
    terms, tempered = _tempered(terms)
    scale = _scale(terms)
    ratio = sympy.Integer(1)
    for argument, weight in terms.items():
        ratio *= argument ** sympy.simplify(weight / scale)
    structure, constants, copies = _counted(ratio)
    margin = sympy.simplify(-constant - scale * sympy.log(constants[0] / constants[1]))
    notes = (*(_means(normalised)), *tempered, *copies)
    return Reading(structure, scale, margin, normalised, notes)


def _means(normalised: bool) -> list[str]:
    return ["probabilities are geometric means over tokens: exp(log p / length)"] if normalised else []


def _of_means(score: sympy.Expr) -> tuple[sympy.Expr, bool]:
    """Return the score with log p / length written as the logarithm of a mean, if all of it is so."""
    lengths = [symbol(name) for name in LENGTHS]
    logs = [log for log in score.atoms(sympy.log) if probabilities(log)]
    if not score.has(*lengths) or not logs:
        return score, False
    means = {symbol(name): symbol(name) ** symbol(f"n_{name[-1]}") for name in ATOMS}
    rewritten = sympy.expand_log(_powers(score.xreplace(means)), force=True)
    rewritten = sympy.simplify(rewritten) if rewritten.has(*lengths) else rewritten
    of_probabilities = sum(term for term in sympy.Add.make_args(sympy.expand(rewritten)) if probabilities(term))
    if sympy.sympify(of_probabilities).has(*lengths):
        return score, False
    return rewritten, True


def _powers(expression: sympy.Expr) -> sympy.Expr:
    """Return the expression with powers of powers and logarithms of powers taken apart."""
    return sympy.powdenest(sympy.expand_log(expression, force=True), force=True)


def _logarithms(score: sympy.Expr) -> tuple[dict[sympy.Expr, sympy.Expr], sympy.Expr]:
    """Return the score as weights of logarithms of factors, each positive, and a constant."""
    terms: dict[sympy.Expr, sympy.Expr] = {}
    constant = sympy.Integer(0)
    for term in sympy.Add.make_args(sympy.expand(unfolded(score))):
        if not probabilities(term):
            constant += term
            continue
        weight, rest = term.as_independent(*probabilities(term), as_Add=False)
        if not isinstance(rest, sympy.log) or probabilities(weight):
            raise NoModelCountError(f"the score is no log-ratio: {spelled(term)} is no multiple of a logarithm")
        for factor, power in _positive_factors(rest.args[0]).items():
            if probabilities(factor):
                terms[factor] = terms.get(factor, sympy.Integer(0)) + weight * power
            else:
                constant += weight * power * sympy.log(factor)
    terms = {argument: weight for argument, weight in terms.items() if weight != 0}
    if constant.has(sympy.I, sympy.zoo, sympy.nan, sympy.oo):
        raise NoModelCountError(f"a constant of it is no number: {spelled(constant)}")
    if not terms:
        raise NoModelCountError("the score does not depend on any probability")
    return terms, constant


def _positive_factors(inner: sympy.Expr) -> dict[sympy.Expr, sympy.Expr]:
    """Return the factors of what a logarithm is of, and their powers; each factor is positive, as their product is."""
    whole = sympy.factor(sympy.together(sympy.powsimp(inner)))
    found: dict[sympy.Expr, sympy.Expr] = {}
    sign = 1
    for factor in sympy.Mul.make_args(whole):
        base, power = factor.as_base_exp()
        if probabilities(base) and _changes_sign(base):
            raise NoModelCountError(f"{spelled(base)} changes its sign: it is no count of anything")
        if _negative(base):
            base, sign = -base, sign * (-1 if power.is_odd else 1)
        found[base] = found.get(base, sympy.Integer(0)) + power
    if sign < 0:
        raise NoModelCountError(f"{spelled(inner)}, of which there is a logarithm, is negative")
    return found


def _negative(expression: sympy.Expr) -> bool:
    """Whether an expression is negative where all probabilities are about a third."""
    letters = probabilities(expression)
    shares = {p: sympy.Rational(30 + k, 97) for k, p in enumerate(letters)}
    value = expression.subs(shares).subs({s: sympy.Rational(1, 2) for s in expression.free_symbols - set(letters)})
    return bool(value.is_negative)


def _changes_sign(expression: sympy.Expr) -> bool:
    """Whether an expression is negative for some of a few probabilities, and not for others."""
    letters = probabilities(expression)
    signs = set()
    for corner in product((sympy.Rational(1, 50), sympy.Rational(47, 50)), repeat=len(letters)):
        value = expression.subs(dict(zip(letters, corner, strict=True)))
        signs.add(bool(value.subs({s: sympy.Rational(1, 2) for s in value.free_symbols}).is_negative))
    return len(signs) > 1


def read_likelihood(score: sympy.Expr) -> Reading:
    """Return what a loss of minus the score means, where the score is the logarithm of a probability p.

    ``-log p`` is the logistic loss of the log-odds of p.

    Raises:
        NoModelCountError: if it is no such logarithm, or the odds count no models.

    Examples:
        >>> read_likelihood(sympy.log(symbol("w"))).structure.marks()
        ('win', 'lose')
    """
    means, normalised = _of_means(score)
    terms, constant = _logarithms(means)
    scale = _scale(terms)
    if constant != 0:
        raise NoModelCountError("a constant is added to the logarithm of a probability")
    p = sympy.Mul(*(argument ** sympy.simplify(weight / scale) for argument, weight in terms.items()))
    if _negative(1 - p):
        raise NoModelCountError(f"{spelled(p)} is no probability")
    found = read_score(sympy.log(p / (1 - p)))
    notes = ["a negative log-likelihood, -log p, is the logistic loss of the log-odds of p"]
    notes += [f"it is weighed {spelled(scale)} times"] if scale != 1 else []
    return replace(found, normalised=normalised, notes=(*_means(normalised), *found.notes, *notes))


def _tempered(
    terms: Mapping[sympy.Expr, sympy.Expr],
) -> tuple[dict[sympy.Expr, sympy.Expr], list[str]]:
    """Return the terms with probabilities that stand alone, to a power that is not whole, as atoms of their own."""
    weights = [abs(weight) for weight in terms.values() if weight.is_number]
    if len(weights) < len(terms) or all((weight / min(weights)).is_integer for weight in weights):
        return dict(terms), []
    whole = max(weights)
    found, notes = {}, []
    for argument, weight in terms.items():
        power = weight / whole
        alone = argument.is_Symbol and not any(other != argument and other.has(argument) for other in terms)
        if not alone or power.is_integer:
            found[argument] = weight
            continue
        found[argument] = sympy.sign(power) * whole
        notes.append(f"{argument} stands to the power {spelled(abs(power))}: its atom weighs that power of it")
    return found, notes


def _scale(terms: Mapping[sympy.Expr, sympy.Expr]) -> sympy.Expr:
    """Return what all weights are whole multiples of.

    Raises:
        NoModelCountError: if there is no such number.
    """
    weights = list(terms.values())
    scale = min((abs(weight) for weight in weights if weight.is_number), default=weights[0])
    if not all(sympy.simplify(weight / scale).is_integer for weight in weights):
        listed = ", ".join(f"({spelled(weight)}) log({spelled(argument)})" for argument, weight in terms.items())
        raise NoModelCountError(f"the weights of logarithms are no multiples of one of them: {listed}")
    return scale


def _counted(ratio: sympy.Expr) -> tuple[Structure, tuple[sympy.Expr, sympy.Expr], list[str]]:
    """Return the structure of a ratio of polynomials, the value each side has on its models, and notes."""
    letters = probabilities(ratio)
    above, below = sympy.fraction(sympy.cancel(sympy.together(ratio)))
    if _negative(above) and _negative(below):
        above, below = -above, -below
    if not above.is_polynomial(*letters) or not below.is_polynomial(*letters):
        raise NoModelCountError(f"({spelled(above)}) / ({spelled(below)}) is no ratio of polynomials of probabilities")
    copies: list[str] = []
    powers = {p: max(sympy.degree(side, p) for side in (above, below)) for p in letters}
    if any(power > 1 for power in powers.values()):
        above, below, copies = _with_copies(above, below, powers)
    letters = probabilities(above * below)
    atoms = {p: _atom(p) for p in letters}
    order = ordered(list(atoms.values()))
    by_atom = {atom: p for p, atom in atoms.items()}
    letters = [by_atom[atom] for atom in order]
    sides = [_models(side, letters, order) for side in (above, below)]
    (top, over), (bottom, under) = sides
    if over.is_negative or under.is_negative:
        raise NoModelCountError(f"the ratio ({spelled(above)}) / ({spelled(below)}) is negative")
    return Structure(order, top, bottom), (over, under), copies


def _atom(letter: sympy.Symbol) -> Atom:
    """Return the atom of a letter: ``w_2``, a copy of w, is ``M(w_2)``."""
    if letter.name in ATOMS:
        return ATOMS[letter.name]
    base, _, copy = letter.name.rpartition("_")
    return Atom(ATOMS[base].model, f"{ATOMS[base].response}_{copy}")


def _models(side: sympy.Expr, letters: Sequence[sympy.Symbol], atoms: Sequence[Atom]) -> tuple[int, sympy.Expr]:
    """Return the models of the formula that a polynomial counts, and the value it has on them.

    Raises:
        NoModelCountError: naming the row whose value is another one.
    """
    polynomial = sympy.Poly(side, *letters) if letters else sympy.Poly(side, sympy.Symbol("none"))
    values: dict[tuple[int, ...], sympy.Expr] = {}
    for corner in product((1, 0), repeat=len(letters)):
        found = sympy.sympify(polynomial.eval(corner) if letters else side)
        if found != 0:
            values[corner] = found
    if not values:
        raise NoModelCountError(f"{spelled(side)} is 0 on every row")
    least, most = (pick(values, key=lambda corner: _size(values[corner])) for pick in (min, max))
    if sympy.simplify(values[most] - values[least]) != 0:
        raise NoModelCountError(_two_values(side, atoms, most, values[most], values[least]))
    rows = sum(1 << row_number([bool(bit) for bit in corner]) for corner in values)
    return rows, values[least]


def _size(value: sympy.Expr) -> float:
    return abs(float(value)) if value.is_number else 1.0


def _two_values(
    side: sympy.Expr, atoms: Sequence[Atom], corner: Sequence[int], found: sympy.Expr, value: sympy.Expr
) -> str:
    row = ", ".join(f"{atom} = {'FT'[bit]}" for atom, bit in zip(atoms, corner, strict=True))
    said = f"{spelled(side)} is no model count: it is {spelled(found)} in the row {row}, and {spelled(value)} in others"
    if found == 2 and value == 1:
        return said + ": the row is counted twice (a mixture of two can be written with an atom of its own, Const(0.5))"
    return said


def _with_copies(
    above: sympy.Expr, below: sympy.Expr, powers: Mapping[sympy.Symbol, int]
) -> tuple[sympy.Expr, sympy.Expr, list[str]]:
    """Return both sides with repeated probabilities as copies, where both are products.

    Raises:
        NoModelCountError: where they are not.
    """
    repeated = {p: power for p, power in powers.items() if power > 1}
    named = ", ".join(f"{p} {power} times" for p, power in repeated.items())
    if not all(_stands_alone(side, p) for side in (above, below) for p in repeated):
        raise NoModelCountError(
            f"({spelled(above)}) / ({spelled(below)}) has a probability more than once in a product ({named}), "
            "so that no model count is equal to it"
        )
    notes = []
    for p, power in repeated.items():
        if power > MOST_COPIES:
            notes.append(
                f"{p} stands {power} times in a product: its atom weighs {p}^{power}, as that many copies would"
            )
            above, below = (side.xreplace({p**power: p}) for side in (above, below))
            continue
        notes.append(f"{p} stands {power} times in a product: {power} copies of it, atoms of their own, are proposed")
        copies = {k: symbol(f"{p.name}_{k}") for k in range(2, power + 1)}
        above, below = (_split(side, p, copies) for side in (above, below))
    return above, below, notes


def _stands_alone(side: sympy.Expr, p: sympy.Symbol) -> bool:
    _, rest = side.as_independent(p, as_Add=False)
    return bool(rest == 1 or rest == p or (rest.is_Pow and rest.base == p))


def _split(side: sympy.Expr, p: sympy.Symbol, copies: Mapping[int, sympy.Symbol]) -> sympy.Expr:
    power = int(sympy.degree(side, p))
    return side / p**power * p ** min(power, 1) * sympy.Mul(*(copies[k] for k in range(2, power + 1)))
