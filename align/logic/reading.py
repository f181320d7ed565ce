"""What the readers of formulas and of expressions share: tokens from left to right, mistakes with a caret."""

import re
from dataclasses import dataclass
from typing import NoReturn


class FormulaError(ValueError):
    """A text cannot be read; the message shows where with a caret."""

    def __init__(self, problem: str, text: str, at: int) -> None:
        line = text.replace("\n", " ").replace("\t", " ")
        super().__init__(f"{problem}\n  {line}\n  {' ' * at}^")
        self.problem, self.at = problem, at


@dataclass(frozen=True, slots=True)
class Token:
    """A part of a text.

    Attributes:
        text: as it stands.
        kind: the name of its group in the pattern; ``end`` after the last.
        at: where it starts.
    """

    text: str
    kind: str
    at: int


class Reader:
    """Reads one text; subclasses say what stands in it.

    Args:
        text: to read.
        pattern: of a token, blanks before it; its one matching group is the token's kind.
        what: what the text should be: "a formula".
    """

    def __init__(self, text: str, pattern: re.Pattern[str], what: str) -> None:
        self.text, self.what = text, what
        self.tokens = self._split(pattern)
        self.place = 0

    def _split(self, pattern: re.Pattern[str]) -> list[Token]:
        found, at, end = [], 0, len(self.text.rstrip())
        while at < end:
            match = pattern.match(self.text, at)
            if match is None:
                start = at + len(self.text[at:]) - len(self.text[at:].lstrip())
                raise FormulaError(f"{self.text[start]!r} is no part of {self.what}", self.text, start)
            kind = match.lastgroup or ""
            found.append(Token(match[kind], kind, match.start(kind)))
            at = match.end()
        return [*found, Token("", "end", end)]

    @property
    def next(self) -> Token:
        """The token that was not taken yet."""
        return self.tokens[self.place]

    def take(self) -> Token:
        """Return the next token, and go on."""
        self.place += 1
        return self.tokens[self.place - 1]

    def fail(self, problem: str, token: Token) -> NoReturn:
        """Refuse the text at a token.

        Raises:
            FormulaError: always.
        """
        raise FormulaError(problem, self.text, token.at)

    def close(self, opening: Token) -> None:
        """Take the parenthesis that closes the one at ``opening``."""
        if self.next.text == ")":
            self.take()
        elif self.next.kind == "end":
            self.fail("a parenthesis is not closed", opening)
        else:
            self.fail(f"an operator or a closing parenthesis should stand here, not {self.next.text!r}", self.next)
