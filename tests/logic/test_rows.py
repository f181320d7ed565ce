from itertools import product

import pytest
from hypothesis import given

from align.logic.formula import Atom, L, W
from align.logic.rows import (
    check_size,
    cofactors,
    everything,
    letters,
    listed,
    projected,
    row_number,
    rows_of,
    support,
    values,
    where_true,
    widened,
)
from tests.logic.formulas import ATOMS, formulas, holds


@given(formulas)
def test_rows_are_those_where_the_formula_holds(formula):
    rows = rows_of(formula, ATOMS)
    for row in product((True, False), repeat=4):
        assert bool(rows >> row_number(row) & 1) == holds(formula, dict(zip(ATOMS, row, strict=True)))


def test_rows_are_numbered_with_the_first_atom_highest():
    assert [letters(row, 2) for row in listed(everything(2), 2)] == ["TT", "TF", "FT", "FF"]
    assert where_true(0, 3) == 0b11110000
    assert where_true(2, 3) == 0b10101010
    assert values(6, 3) == (True, True, False)
    assert row_number(values(6, 3)) == 6


def test_more_than_sixteen_atoms_are_refused():
    check_size([W] * 16)
    with pytest.raises(ValueError, match="17 atoms"):
        check_size([W] * 17)


def test_a_set_over_more_atoms_does_not_depend_on_them():
    third = Atom("Safe")
    wide = widened(rows_of(L >> W, (W, L)), (W, L), (L, third, W))
    assert wide == rows_of(L >> W, (L, third, W))
    assert list(support(wide, 3)) == [0, 2]
    assert projected(wide, (L, third, W), (W, L)) == rows_of(L >> W, (W, L))


def test_projection_keeps_what_holds_for_some_value():
    assert projected(rows_of(W & L, (W, L)), (W, L), (W,)) == 0b10
    assert projected(rows_of(W | L, (W, L)), (W, L), (W,)) == 0b11


def test_cofactors_are_what_is_left():
    true, false = cofactors(rows_of(L >> W, (W, L)), 0, 2)
    assert true == everything(2)
    assert false == rows_of(~L, (W, L))
