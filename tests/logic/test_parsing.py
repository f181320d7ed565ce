import pytest

from align.logic.formula import FALSE, REF_L, REF_W, TRUE, Atom, Implies, L, W, one_hot
from align.logic.parsing import FormulaError, parse


@pytest.mark.parametrize(
    "text",
    [
        "M(l) & Ref(w) -> M(w) & Ref(l)",
        "m(l) and ref(w) implies m(w) and ref(l)",
        "M(l) && Ref(w) => M(w) && Ref(l)",
        "M(l) ∧ Ref(w) ⇒ M(w) ∧ Ref(l)",
        "Implies(And(M(x,yl),Ref(x,yw)),And(M(x,yw),Ref(x,yl)))",
        "Implies(And(M(x, y_l), Ref(x, y_w)), M(w) & Ref(l))",
        "(M(y_l)&Ref(y_w))->(M(y_w)&Ref(y_l))",
    ],
)
def test_dpo_in_every_spelling(text):
    assert parse(text) == Implies(L & REF_W, W & REF_L)


def test_tight_operators_bind_first():
    assert parse("~M(w) & M(l) ^ Ref(w) | Ref(l) -> M(w) <-> M(l)") == (((((~W & L) ^ REF_W) | REF_L) >> W).iff(L))
    assert parse("M(w) -> M(l) -> Ref(w)") == W >> (L >> REF_W)
    assert parse("not M(w) or M(l)") == ~W | L
    assert parse("!!M(w)") == ~~W


def test_constants_macros_and_atoms_of_ones_own():
    assert (parse("true"), parse("⊥"), parse("1"), parse("False")) == (TRUE, FALSE, TRUE, FALSE)
    assert parse("one_hot(M(w), M(l))") == one_hot(W, L)
    assert parse("at_most_one(M(w), M(l))") == ~(W & L)
    assert parse("M(y3) | Ref2(w) & Safe & Judge(w)").atoms() == (
        *(Atom("M", "y3"), Atom("Judge", "w"), Atom("Ref2", "w"), Atom("Safe")),
    )
    assert parse("Const(0.3)") == Atom("Const", "0.3")
    assert parse("Equivalent(M(w), M(l))") == W.iff(L)
    assert parse("Xor(M(w), Not(M(l)))") == W ^ ~L


@pytest.mark.parametrize(
    ("text", "problem", "at"),
    [
        ("", "empty formula", 0),
        ("M(l) -> ", "ends where a part", 7),
        ("M(l) M(w)", "an operator is missing before 'M'", 5),
        ("(M(w)", "a parenthesis is not closed", 0),
        ("M(w))", "a closing parenthesis too many", 4),
        ("And(M(w))", "And takes at least 2 formulas, got 1", 0),
        ("Not(M(w), M(l))", "Not takes 1 formula, got 2", 0),
        ("M(w) & & M(l)", "a formula should stand here, not '&'", 7),
        ("M()", "the name of a response should stand here", 2),
        ("Impliess(M(w), M(l))", "did you mean 'Implies'?", 0),
        ("one_ht(M(w), M(l))", "did you mean 'one_hot'?", 0),
        ("M(w) ^ M(l) ^ Ref(w)", "say with parentheses which '^' comes first", 12),
        ("Const(3)", "a probability from 0 to 1", 6),
        ("M(w) § M(l)", "'§' is no part of a formula", 5),
        ("M(a, b, c)", "takes a response, or the prompt x and a response", 8),
        ("M(w", "a parenthesis is not closed", 1),
        ("M(w l)", "an operator or a closing parenthesis", 4),
        ("and", "a formula should stand here, not 'and'", 0),
    ],
)
def test_mistakes_are_pointed_at(text, problem, at):
    with pytest.raises(FormulaError) as found:
        parse(text)
    lines = str(found.value).splitlines()
    assert problem in lines[0]
    assert lines[1] == f"  {text}"
    assert lines[2].index("^") - 2 == at == found.value.at
    assert isinstance(found.value, ValueError)
