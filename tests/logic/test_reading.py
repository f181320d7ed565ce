import re

import pytest

from align.logic.reading import FormulaError, Reader

WORDS = re.compile(r"\s*(?:(?P<word>[a-z]+)|(?P<sign>[()]))")


def test_a_text_is_read_token_by_token():
    reader = Reader("one ( two )", WORDS, "a list")
    assert [(token.text, token.kind, token.at) for token in reader.tokens] == [
        ("one", "word", 0),
        ("(", "sign", 4),
        ("two", "word", 6),
        (")", "sign", 10),
        ("", "end", 11),
    ]
    assert reader.take().text == "one"
    opening = reader.take()
    assert reader.take().text == "two"
    reader.close(opening)
    assert reader.next.kind == "end"


def read(text):
    reader = Reader(text, WORDS, "a list")
    opening = reader.take()
    reader.take()
    reader.close(opening)


@pytest.mark.parametrize(
    ("text", "problem", "at"),
    [
        ("one 2", "'2' is no part of a list", 4),
        ("(one", "a parenthesis is not closed", 0),
        ("(one two", "not 'two'", 5),
    ],
)
def test_mistakes_have_a_caret(text, problem, at):
    with pytest.raises(FormulaError) as found:
        read(text)
    assert problem in str(found.value)
    assert str(found.value).splitlines()[2].index("^") - 2 == at
