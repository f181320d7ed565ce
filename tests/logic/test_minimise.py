from itertools import combinations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from align.logic.formula import Atom, Iff, L, W, Xor
from align.logic.minimise import cover, literals, rows_of_cube, shortest
from align.logic.rows import everything, rows_of

FOUR = tuple(Atom("M", f"y{k}") for k in range(1, 5))


def cheapest(must, free, n):
    """The fewest literals of any set of cubes, by trying all sets."""
    cubes = [c for c in product((-1, 0, 1), repeat=n) if not rows_of_cube(c) & ~(must | free)]
    for size in range(len(cubes) + 1):
        prices = [
            sum(v >= 0 for cube in chosen for v in cube)
            for chosen in combinations(cubes, size)
            if not must & ~_union(chosen)
        ]
        if prices:
            more = [
                sum(v >= 0 for cube in chosen for v in cube)
                for chosen in combinations(cubes, size + 1)
                if not must & ~_union(chosen)
            ]
            return min(prices + more)
    raise AssertionError


def _union(cubes):
    rows = 0
    for cube in cubes:
        rows |= rows_of_cube(cube)
    return rows


def test_two_atoms_with_every_set_left_open():
    for rows, free in product(range(16), repeat=2):
        must = rows & ~free
        found = shortest(rows, (W, L), free)
        assert found.exact
        said = rows_of(found.formula, (W, L))
        assert said & ~free == must
        cubes = cover(must, free, 2)
        assert sum(v >= 0 for cube in cubes for v in cube) == (cheapest(must, free, 2) if must else 0)


@given(st.integers(0, 255), st.integers(0, 255))
@settings(max_examples=25, deadline=None)
def test_three_atoms_take_no_more_literals_than_needed(rows, free):
    must = rows & ~free
    cubes = cover(must, free, 3)
    assert _union(cubes) & ~free == must
    if must and len(cubes) <= 2:  # larger sets are too many to try
        assert sum(v >= 0 for cube in cubes for v in cube) == cheapest(must, free, 3)


@given(st.integers(0, 2**16 - 1), st.integers(0, 2**16 - 1))
@settings(max_examples=60, deadline=None)
def test_four_atoms_are_covered_exactly(rows, free):
    found = shortest(rows, FOUR, free)
    assert found.exact
    assert rows_of(found.formula, FOUR) & ~free == rows & ~free


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
@settings(max_examples=20, deadline=None)
def test_six_atoms_are_covered_and_said_to_be_a_heuristic(rows, free):
    atoms = tuple(Atom("M", f"y{k}") for k in range(1, 7))
    found = shortest(rows, atoms, free)
    assert rows_of(found.formula, atoms) & ~free == rows & ~free
    trivial = rows & ~free == 0 or (rows | free) == everything(6)
    assert found.exact == trivial


def test_what_two_atoms_have_in_common_is_recognised():
    assert shortest(0b0110, (W, L)).formula == Xor(W, L)
    assert shortest(0b1001, (W, L)).formula == Iff(W, L)
    assert shortest(rows_of(FOUR[1] ^ FOUR[3], FOUR), FOUR).formula == Xor(FOUR[1], FOUR[3])


@pytest.mark.parametrize(
    ("text", "formula"),
    [("M(l) -> M(w)", L >> W), ("M(w) & ~M(l)", W & ~L), ("~M(l)", ~L), ("~(M(w) & M(l))", ~(W & L)), ("true", W | ~W)],
)
def test_formulas_are_written_as_people_read_them(text, formula):
    assert str(shortest(rows_of(formula, (W, L)), (W, L)).formula) == text


def test_positive_atoms_are_preferred_where_both_are_as_short():
    assert shortest(0b0100, (W, L), free=0b1001).formula == W


def test_literals_are_counted():
    assert literals((L >> W) | ~L) == 3
