from dataclasses import FrozenInstanceError

import pytest

from align.logic.formula import (
    FALSE,
    MACROS,
    REF_W,
    TRUE,
    And,
    Atom,
    Iff,
    Implies,
    L,
    Not,
    Or,
    W,
    Xor,
    at_most_one,
    chain,
    conjunction,
    disjunction,
    one_hot,
    one_true,
    untrainable_atoms,
)
from align.logic.rows import rows_of


def test_operators_make_formulas():
    assert Not(W) == ~W
    assert And((W, L, REF_W)) == W & L & REF_W
    assert Or((W, L, REF_W)) == W | L | REF_W
    assert (W ^ L, W >> L, W.iff(L)) == (Xor(W, L), Implies(W, L), Iff(W, L))


def test_formulas_do_not_change_and_can_be_keys():
    with pytest.raises(FrozenInstanceError):
        W.model = "Ref"
    assert len({W >> L, W >> L, L >> W}) == 2


def test_atoms_come_in_the_order_of_truth_tables():
    judge, third, tenth = Atom("Judge", "w"), Atom("M", "y3"), Atom("M", "y10")
    found = (tenth & third & judge & REF_W & L & Atom("Const", "0.5") & W).atoms()
    assert [atom.name for atom in found] == ["M(w)", "M(l)", "M(y3)", "M(y10)", "Ref(w)", "Judge(w)", "Const(0.5)"]


def test_macros_say_how_many_hold():
    third = Atom("M", "y3")
    atoms = (W, L, third)
    for name, numbers in (("one_true", (1, 2, 3)), ("at_most_one", (0, 1)), ("one_hot", (1,))):
        rows = rows_of(MACROS[name](*atoms), atoms)
        assert {row for row in range(8) if rows >> row & 1} == {r for r in range(8) if r.bit_count() in numbers}
    assert one_hot(W, L) == W ^ L
    assert (one_true(W), one_hot(W)) == (W, W)
    assert at_most_one(W) == TRUE


def test_parts_of_any_number_are_joined():
    assert (conjunction([]), disjunction([])) == (TRUE, FALSE)
    assert (conjunction([W]), disjunction([L])) == (W, L)
    with pytest.raises(ValueError, match="at least two parts"):
        And((W,))


def test_a_chain_asks_that_each_is_valid_where_the_next_is():
    first, second, third = (Atom("M", f"y{k}") for k in (1, 2, 3))
    assert chain(3) == (second >> first) & (third >> second)
    for wrong in (1, 17):
        with pytest.raises(ValueError, match="from 2 to 16"):
            chain(wrong)


def test_atoms_that_training_cannot_weigh_are_named():
    atoms = [W, REF_W, Atom("Score", "l"), Atom("Const", "0.3"), Atom("M", "y3"), Atom("Ref2", "w"), Atom("Safe")]
    assert untrainable_atoms(atoms) == ["M(y3)", "Ref2(w)", "Safe"]
