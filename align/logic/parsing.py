"""Formulas from text: infix or the paper's prefix style, ASCII or the signs of logic; mistakes get a caret."""

import re
from collections.abc import Callable
from difflib import get_close_matches

from align.logic.formula import FALSE, MACROS, TRUE, And, Atom, Formula, Iff, Implies, Not, Or, Xor
from align.logic.reading import FormulaError as FormulaError
from align.logic.reading import Reader, Token

_TOKEN = re.compile(
    r"\s*(?:(?P<number>\d+\.\d*|\.?\d+)|(?P<name>[^\W\d]\w*)|(?P<sign><->|<=>|->|=>|&&|\|\||[~!¬&∧|∨^⊕→⇒↔⇔⊤⊥(),]))"
)
_OPERATORS: dict[str, type[Formula]] = {
    **dict.fromkeys(("~", "!", "¬", "not"), Not),
    **dict.fromkeys(("&", "&&", "∧", "and"), And),
    **dict.fromkeys(("|", "||", "∨", "or"), Or),
    **dict.fromkeys(("^", "⊕", "xor"), Xor),
    **dict.fromkeys(("->", "=>", "→", "⇒", "implies"), Implies),
    **dict.fromkeys(("<->", "<=>", "↔", "⇔", "iff"), Iff),
}
_CONSTANTS = {"true": TRUE, "⊤": TRUE, "1": TRUE, "false": FALSE, "⊥": FALSE, "0": FALSE}
_LOOSEST_FIRST: tuple[type[Formula], ...] = (Iff, Implies, Or, Xor, And)
_MODELS = {"m": "M", "ref": "Ref"}
_RESPONSES = {"yw": "w", "y_w": "w", "yl": "l", "y_l": "l"}


def parse(text: str) -> Formula:
    """Return the formula that a text spells.

    Infix: ``~ & ^ | -> <->``, those that bind tightest first, with ``!``, ``&&``, ``||``, ``=>``, ``<=>``, words
    (``not and xor or implies iff``) and signs (``¬ ∧ ⊕ ∨ → ↔``) for the same. Prefix: ``Implies(And(a, b), c)``.
    ``true``, ``false``, ``⊤``, ``⊥`` are constants; ``one_hot``, ``one_true``, ``at_most_one`` take any number of
    formulas. An atom is a name, or a name with a response: ``M(w)``; the paper's ``M(x, y_w)`` is the same.

    Raises:
        FormulaError: a ValueError that points at what is wrong.

    Examples:
        >>> parse("M(l) & Ref(w) -> M(w)") == parse("Implies(And(M(x,yl), Ref(x,yw)), M(x,yw))")
        True
    """
    return _Parser(text, _TOKEN, "a formula").whole()


class _Parser(Reader):
    """Reads one formula from left to right."""

    def whole(self) -> Formula:
        if self.next.kind == "end":
            self.fail("an empty formula", self.next)
        formula = self.level(0)
        if self.next.text == ")":
            self.fail("a closing parenthesis too many", self.next)
        if self.next.kind != "end":
            self.fail(f"an operator is missing before {self.next.text!r}", self.next)
        return formula

    def operator(self) -> type[Formula] | None:
        token = self.next
        word = token.text.lower() if token.kind == "name" and self.tokens[self.place + 1].text != "," else token.text
        return _OPERATORS.get(word)

    def level(self, depth: int) -> Formula:
        if depth == len(_LOOSEST_FIRST):
            return self.negation()
        kind = _LOOSEST_FIRST[depth]
        parts = [self.level(depth + 1)]
        while self.operator() is kind:
            sign = self.take()
            parts.append(self.level(depth if kind is Implies else depth + 1))
            if kind in (Xor, Iff) and self.operator() is kind:
                self.fail(f"say with parentheses which {sign.text!r} comes first", self.next)
        if len(parts) == 1:
            return parts[0]
        return kind(tuple(parts)) if kind in (And, Or) else kind(*parts)

    def negation(self) -> Formula:
        if self.operator() is Not and not self._is_call():
            self.take()
            return Not(self.negation())
        return self.primary()

    def _is_call(self) -> bool:
        return self.next.kind == "name" and self.next.text == "Not" and self.tokens[self.place + 1].text == "("

    def primary(self) -> Formula:
        token = self.take()
        if token.text == "(":
            inner = self.level(0)
            self.close(token)
            return inner
        if token.text in _CONSTANTS or token.text.lower() in ("true", "false"):
            return _CONSTANTS[token.text.lower()]
        if token.kind == "name":
            return self.named(token)
        stray = f"a formula should stand here, not {token.text!r}"
        return self.fail("the formula ends where a part of it should stand" if token.kind == "end" else stray, token)

    def named(self, token: Token) -> Formula:
        if self.next.text != "(":
            if token.text.lower() in _OPERATORS:
                self.fail(f"a formula should stand here, not {token.text!r}", token)
            return Atom(token.text)
        if token.text in _PREFIX or token.text in MACROS:
            return self.call(token)
        self._refuse_near_operator(token)
        return self.atom(token)

    def call(self, token: Token) -> Formula:
        opening = self.take()
        parts = [self.level(0)]
        while self.next.text == ",":
            self.take()
            parts.append(self.level(0))
        self.close(opening)
        if token.text in MACROS:
            return MACROS[token.text](*parts)
        least, most, make = _PREFIX[token.text]
        if len(parts) < least or (most is not None and len(parts) > most):
            wanted = str(least) if least == most else f"at least {least}"
            self.fail(f"{token.text} takes {wanted} formula{'s' * (wanted != '1')}, got {len(parts)}", token)
        return make(parts)

    def atom(self, token: Token) -> Formula:
        opening, arguments = self.take(), []
        while True:
            argument = self.take()
            if argument.kind not in ("name", "number"):
                self.fail(f"the name of a response should stand here, as in {token.text}(w)", argument)
            arguments.append(argument)
            if self.next.text != ",":
                break
            self.take()
        self.close(opening)
        if len(arguments) > 2 or (len(arguments) == 2 and arguments[0].text != "x"):
            self.fail(f"{token.text} takes a response, or the prompt x and a response", arguments[-1])
        response = arguments[-1].text
        if token.text == "Const":
            self._check_share(arguments[-1])
            if float(response) in (0.0, 1.0):
                return TRUE if float(response) else FALSE
        return Atom(_MODELS.get(token.text.lower(), token.text), _RESPONSES.get(response, response))

    def _check_share(self, token: Token) -> None:
        if token.kind != "number" or not 0 <= float(token.text) <= 1:
            self.fail(f"Const takes a probability from 0 to 1, got {token.text!r}", token)

    def _refuse_near_operator(self, token: Token) -> None:
        """Refuse a misspelt name of the prefix style, which would read as an atom."""
        argument, after = ([*self.tokens, self.tokens[-1], self.tokens[-1]][self.place + k] for k in (1, 2))
        plain = argument.text in ("x", "w", "l", *_RESPONSES) or argument.kind == "number"
        if plain and after.text in (")", ","):  # an atom's only or first argument is a bare name
            return
        near = get_close_matches(token.text.lower(), [name.lower() for name in (*_PREFIX, *MACROS)], n=1, cutoff=0.75)
        if near:
            known = next(name for name in (*_PREFIX, *MACROS) if name.lower() == near[0])
            self.fail(f"no operator {token.text!r}; did you mean {known!r}?", token)


_Make = Callable[[list[Formula]], Formula]
_TWO: tuple[tuple[str, type[Formula]], ...] = (("Implies", Implies), ("Iff", Iff), ("Equivalent", Iff), ("Xor", Xor))
_PREFIX: dict[str, tuple[int, int | None, _Make]] = {
    "Not": (1, 1, lambda parts: Not(parts[0])),
    "And": (2, None, lambda parts: And(tuple(parts))),
    "Or": (2, None, lambda parts: Or(tuple(parts))),
    **{name: (2, 2, (lambda parts, kind=kind: kind(*parts))) for name, kind in _TWO},  # type: ignore[misc]
}
"""Prefix operators: fewest and most parts, and what makes the formula."""
