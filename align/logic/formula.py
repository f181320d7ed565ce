"""Propositional formulas about which responses a model deems valid: their syntax, immutable, with Python's operators.

An atom ``M(w)`` reads "the model deems the winner a valid answer" and weighs its probability (Richardson, Srikumar,
Sabharwal, 2025). Atoms that training can weigh are in :data:`TRAINABLE`; any other name may be used to reason with.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields
from itertools import combinations, pairwise
from typing import Any

TRAINABLE = {
    "M": "the policy's probability of a response",
    "Ref": "the reference's probability of a response",
    "Score": "a judge's probability that a response is good: columns chosen_score, rejected_score",
    "Const": "a number from 0 to 1",
}
"""Atoms that a loss can be trained with, and what each weighs."""

_NUMBERED = re.compile(r"(\D*)(\d*)")


@dataclass(frozen=True, slots=True)
class Formula:
    """Any formula. ``~a``, ``a & b``, ``a | b``, ``a ^ b``, ``a >> b`` and ``a.iff(b)`` make larger ones.

    ``a & b & c`` is one conjunction of three parts, and so for ``|``. Python's ``>>`` binds more tightly than ``&``.
    """

    def __invert__(self) -> "Not":
        return Not(self)

    def __and__(self, other: "Formula") -> "And":
        return And((*_parts(self, And), *_parts(other, And)))

    def __or__(self, other: "Formula") -> "Or":
        return Or((*_parts(self, Or), *_parts(other, Or)))

    def __xor__(self, other: "Formula") -> "Xor":
        return Xor(self, other)

    def __rshift__(self, other: "Formula") -> "Implies":
        return Implies(self, other)

    def iff(self, other: "Formula") -> "Iff":
        """Return ``self <-> other``."""
        return Iff(self, other)

    def children(self) -> Iterator["Formula"]:
        """Yield the formulas this one is made of."""
        for field in fields(self):
            value: Any = getattr(self, field.name)
            if isinstance(value, Formula):
                yield value
            elif isinstance(value, tuple):
                yield from value

    def atoms(self) -> tuple["Atom", ...]:
        """Return the atoms in the order of truth tables: the policy's, the reference's, others.

        Examples:
            >>> [atom.name for atom in (Atom("Ref", "w") & Atom("M", "l") >> Atom("M", "w")).atoms()]
            ['M(w)', 'M(l)', 'Ref(w)']
        """
        return ordered(self._found())

    def _found(self) -> Iterator["Atom"]:
        for child in self.children():
            yield from child._found()

    def __str__(self) -> str:
        from align.logic.printing import infix

        return infix(self)


@dataclass(frozen=True, slots=True)
class Atom(Formula):
    """A statement that has a probability.

    Attributes:
        model: who deems: ``M``, ``Ref``, or a name of the user's.
        response: what is deemed valid, ``w`` and ``l`` for chosen and rejected; None for a statement of its own.
    """

    model: str
    response: str | None = None

    @property
    def name(self) -> str:
        """``M(w)``, or the bare name of an atom without a response."""
        return self.model if self.response is None else f"{self.model}({self.response})"

    def _found(self) -> Iterator["Atom"]:
        yield self

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Constant(Formula):
    """Truth or falsehood."""

    value: bool


TRUE, FALSE = Constant(True), Constant(False)


@dataclass(frozen=True, slots=True)
class Not(Formula):
    """``~of``."""

    of: Formula


@dataclass(frozen=True, slots=True)
class And(Formula):
    """All of the parts, of which there are at least two."""

    parts: tuple[Formula, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)


@dataclass(frozen=True, slots=True)
class Or(Formula):
    """At least one of the parts, of which there are at least two."""

    parts: tuple[Formula, ...]

    def __post_init__(self) -> None:
        _check_parts(self.parts)


@dataclass(frozen=True, slots=True)
class Xor(Formula):
    """Exactly one of two."""

    left: Formula
    right: Formula


@dataclass(frozen=True, slots=True)
class Implies(Formula):
    """``if_`` only where ``then``."""

    if_: Formula
    then: Formula


@dataclass(frozen=True, slots=True)
class Iff(Formula):
    """Both or neither."""

    left: Formula
    right: Formula


def conjunction(parts: Sequence[Formula]) -> Formula:
    """Return all of any number of parts: true where there is none."""
    return parts[0] if len(parts) == 1 else And(tuple(parts)) if parts else TRUE


def disjunction(parts: Sequence[Formula]) -> Formula:
    """Return one of any number of parts: false where there is none."""
    return parts[0] if len(parts) == 1 else Or(tuple(parts)) if parts else FALSE


def one_true(*parts: Formula) -> Formula:
    """Return that at least one part is true.

    Examples:
        >>> str(one_true(W, L))
        'M(w) | M(l)'
    """
    return disjunction(parts)


def at_most_one(*parts: Formula) -> Formula:
    """Return that no two parts are true together.

    Examples:
        >>> str(at_most_one(W, L))
        '~(M(w) & M(l))'
    """
    return conjunction([Not(And(pair)) for pair in combinations(parts, 2)])


def one_hot(*parts: Formula) -> Formula:
    """Return that exactly one part is true.

    Examples:
        >>> str(one_hot(W, L))
        'M(w) ^ M(l)'
    """
    if len(parts) == 2:
        return Xor(*parts)
    return conjunction([one_true(*parts), *_parts(at_most_one(*parts), And)]) if len(parts) > 1 else one_true(*parts)


MACROS = {"one_true": one_true, "at_most_one": at_most_one, "one_hot": one_hot}
"""What formulas can call, by name."""

W, L, REF_W, REF_L = Atom("M", "w"), Atom("M", "l"), Atom("Ref", "w"), Atom("Ref", "l")


def chain(responses: int) -> Formula:
    """Return what a ranking of so many responses, best first, asks for: each is valid where the next one is.

    Raises:
        ValueError: for fewer than two, or more than 16, whose truth table is the largest that is kept whole.

    Examples:
        >>> str(chain(3))
        '(M(y2) -> M(y1)) & (M(y3) -> M(y2))'
    """
    if not 2 <= responses <= 16:
        raise ValueError(f"a chain has from 2 to 16 responses, got {responses}")
    atoms = [Atom("M", f"y{place}") for place in range(1, responses + 1)]
    return conjunction([worse >> better for better, worse in pairwise(atoms)])


def untrainable_atoms(atoms: Sequence[Atom]) -> list[str]:
    """Return the names of the atoms whose probability training does not know.

    Examples:
        >>> untrainable_atoms([W, Atom("M", "y3"), Atom("Const", "0.3"), Atom("Safe")])
        ['M(y3)', 'Safe']
    """
    return [
        atom.name
        for atom in atoms
        if atom.model not in TRAINABLE or (atom.model != "Const" and atom.response not in ("w", "l"))
    ]


def ordered(atoms: Iterator[Atom] | Sequence[Atom]) -> tuple[Atom, ...]:
    """Return atoms once each, in the order of truth tables."""
    return tuple(sorted(set(atoms), key=place))


def place(atom: Atom) -> tuple[Any, ...]:
    """Return what atoms are sorted by."""
    response = atom.response or ""
    name, number = _NUMBERED.match(response).groups()  # type: ignore[union-attr]
    kind = {"M": 0, "Ref": 1, "Const": 3}.get(atom.model, 2)
    return kind, atom.model, {"w": 0, "l": 1}.get(response, 2), name, int(number or 0), response


def _parts(formula: Formula, kind: type[And] | type[Or]) -> tuple[Formula, ...]:
    return formula.parts if isinstance(formula, kind) else (formula,)


def _check_parts(parts: tuple[Formula, ...]) -> None:
    if len(parts) < 2:
        raise ValueError(f"a conjunction or disjunction has at least two parts, got {len(parts)}")
