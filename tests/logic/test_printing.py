from hypothesis import given

from align.logic.formula import FALSE, REF_L, REF_W, TRUE, Atom, L, W
from align.logic.parsing import parse
from align.logic.printing import english, infix, latex, prefix, unicode
from tests.logic.formulas import formulas


@given(formulas)
def test_what_is_printed_reads_back(formula):
    for printed in (infix, unicode, prefix):
        assert parse(printed(formula)) == formula


def test_parentheses_stand_where_reading_needs_them():
    cases = {
        "M(l) & Ref(w) -> M(w)": (L & REF_W) >> W,
        "~(M(w) | M(l))": ~(W | L),
        "M(w) -> M(l) -> Ref(w)": W >> (L >> REF_W),
        "(M(w) -> M(l)) -> Ref(w)": (W >> L) >> REF_W,
        "(M(w) ^ M(l)) & Ref(w)": (W ^ L) & REF_W,
        "M(w) <-> (M(l) <-> Ref(w))": W.iff(L.iff(REF_W)),
        "true -> false": TRUE >> FALSE,
    }
    for text, formula in cases.items():
        assert infix(formula) == str(formula) == text


def test_signs_latex_and_prefix():
    formula = (L & REF_W) >> (W & REF_L)
    assert unicode(formula) == "M(l) ∧ Ref(w) → M(w) ∧ Ref(l)"
    assert prefix(formula) == "Implies(And(M(l), Ref(w)), And(M(w), Ref(l)))"
    assert latex(~W | TRUE) == r"\lnot M(w) \lor \top"


def test_english_says_who_deems_what():
    assert english(L >> W) == "whenever the model deems the loser valid, the model deems the winner valid"
    assert english(W & ~L) == "the model deems the winner valid and the model does not deem the loser valid"
    assert english(W ^ L).startswith("either the model deems the winner valid or")
    assert english(W.iff(L)).endswith("exactly when the model deems the loser valid")
    assert english(Atom("Safe") | REF_L) == "Safe holds or the reference deems the loser valid"
    assert english(Atom("Const", "0.3")) == "a chance of 0.3 holds"
    assert english(~(W & L)) == (
        "it is not so that the model deems the winner valid and the model deems the loser valid"
    )
    assert english(TRUE) == "anything holds"
