"""Random formulas, and their truth by hand."""

from hypothesis import strategies as st

from align.logic.formula import And, Atom, Constant, Iff, Implies, Not, Or, Xor

ATOMS = (Atom("M", "w"), Atom("M", "l"), Atom("Ref", "w"), Atom("Safe"))


def _larger(inner):
    several = st.lists(inner, min_size=2, max_size=3).map(tuple)
    two = st.tuples(inner, inner)
    return st.one_of(
        inner.map(Not),
        several.map(And),
        several.map(Or),
        *(two.map(lambda pair, kind=kind: kind(*pair)) for kind in (Implies, Iff, Xor)),
    )


formulas = st.recursive(st.one_of(st.sampled_from(ATOMS), st.booleans().map(Constant)), _larger, max_leaves=8)


def holds(formula, row):
    """Whether a formula is true where the atoms of ``row`` are."""
    kind = type(formula)
    if kind is Atom:
        return row[formula]
    if kind is Constant:
        return formula.value
    parts = [holds(part, row) for part in formula.children()]
    return {
        Not: lambda: not parts[0],
        And: lambda: all(parts),
        Or: lambda: any(parts),
        Implies: lambda: not parts[0] or parts[1],
        Iff: lambda: parts[0] == parts[1],
        Xor: lambda: parts[0] != parts[1],
    }[kind]()
