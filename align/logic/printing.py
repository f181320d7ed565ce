"""Formulas as text: infix in ASCII or in the signs of logic, the paper's prefix style, LaTeX, English.

What :func:`infix` and :func:`prefix` print, :func:`align.logic.parsing.parse` reads back as the same formula.
"""

from collections.abc import Mapping
from types import MappingProxyType

from align.logic.formula import And, Atom, Constant, Formula, Iff, Implies, Not, Or, Xor

Signs = Mapping[type[Formula] | bool, str]

ASCII: Signs = MappingProxyType(
    {Not: "~", And: " & ", Xor: " ^ ", Or: " | ", Implies: " -> ", Iff: " <-> ", True: "true", False: "false"}
)
UNICODE: Signs = MappingProxyType(
    {Not: "¬", And: " ∧ ", Xor: " ⊕ ", Or: " ∨ ", Implies: " → ", Iff: " ↔ ", True: "⊤", False: "⊥"}
)
LATEX: Signs = MappingProxyType(
    {
        Not: r"\lnot ",
        And: r" \land ",
        Xor: r" \oplus ",
        Or: r" \lor ",
        Implies: r" \rightarrow ",
        Iff: r" \leftrightarrow ",
        True: r"\top",
        False: r"\bot",
    }
)

BINDING: tuple[type[Formula], ...] = (Iff, Implies, Or, Xor, And, Not)
"""Operators, those that bind loosest first. An implication groups to the right; of the others that take two parts,
equals do not stand beside each other without parentheses."""


def infix(formula: Formula, signs: Signs = ASCII) -> str:
    """Return the formula with operators between their parts, and no more parentheses than reading needs.

    Examples:
        >>> from align.logic.formula import L, REF_W, W
        >>> infix((L & REF_W) >> W)
        'M(l) & Ref(w) -> M(w)'
        >>> infix(~(W | L), UNICODE)
        '¬(M(w) ∨ M(l))'
    """
    if isinstance(formula, Atom):
        return formula.name
    if isinstance(formula, Constant):
        return signs[formula.value]
    if isinstance(formula, Not):
        return signs[Not] + _inside(formula.of, Not, signs)
    if isinstance(formula, Implies):
        return _inside(formula.if_, Implies, signs) + signs[Implies] + _inside(formula.then, Implies, signs, right=True)
    return signs[type(formula)].join(_inside(part, type(formula), signs) for part in formula.children())


def unicode(formula: Formula) -> str:
    """Return the formula in the signs of logic: ``M(l) → M(w)``."""
    return infix(formula, UNICODE)


def latex(formula: Formula) -> str:
    r"""Return the formula for a LaTeX document: ``M(l) \rightarrow M(w)``."""
    return infix(formula, LATEX)


def prefix(formula: Formula) -> str:
    """Return the formula in the paper's style.

    Examples:
        >>> from align.logic.formula import L, W
        >>> prefix(L >> W)
        'Implies(M(l), M(w))'
    """
    if isinstance(formula, Atom | Constant):
        return infix(formula)
    return f"{type(formula).__name__}({', '.join(map(prefix, formula.children()))})"


def _inside(part: Formula, outer: type[Formula], signs: Signs, *, right: bool = False) -> str:
    text = infix(part, signs)
    if isinstance(part, Atom | Constant):
        return text
    own, theirs = BINDING.index(type(part)), BINDING.index(outer)
    alike_is_clear = outer is Not or (outer is Implies and right)
    return text if own > theirs or (own == theirs and alike_is_clear) else f"({text})"


WHO = {"M": "the model", "Ref": "the reference", "Score": "the judge"}
WHAT = {"w": "the winner", "l": "the loser"}


def english(formula: Formula) -> str:
    """Return the formula as an English sentence without its full stop.

    Examples:
        >>> from align.logic.formula import L, W
        >>> english(L >> W)
        'whenever the model deems the loser valid, the model deems the winner valid'
    """
    if isinstance(formula, Constant):
        return "anything holds" if formula.value else "nothing holds"
    if isinstance(formula, Implies):
        return f"whenever {english(formula.if_)}, {english(formula.then)}"
    if isinstance(formula, Iff):
        return f"{_clause(formula.left)} exactly when {_clause(formula.right)}"
    if isinstance(formula, Xor):
        return f"either {_clause(formula.left)} or {_clause(formula.right)}, not both"
    return _clause(formula)


def _clause(formula: Formula) -> str:
    if isinstance(formula, Atom):
        return _deems(formula, "deems", "holds")
    if isinstance(formula, Not) and isinstance(formula.of, Atom):
        return _deems(formula.of, "does not deem", "does not hold")
    if isinstance(formula, Not):
        return f"it is not so that {english(formula.of)}"
    if isinstance(formula, And):
        return " and ".join(_bracketed(part, Or) for part in formula.parts)
    if isinstance(formula, Or):
        return " or ".join(_bracketed(part, And) for part in formula.parts)
    return english(formula)


def _bracketed(part: Formula, other: type[Formula]) -> str:
    return f"({_clause(part)})" if isinstance(part, other | Implies | Iff | Xor) else _clause(part)


def _deems(atom: Atom, deems: str, holds: str) -> str:
    if atom.response is None:
        return f"{atom.model} {holds}"
    if atom.model == "Const":
        return f"a chance of {atom.response} {holds}"
    return f"{WHO.get(atom.model, atom.model)} {deems} {WHAT.get(atom.response, atom.response)} valid"
