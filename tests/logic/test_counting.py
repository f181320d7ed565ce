import pytest

from align.logic.counting import MEANINGS, counts, same_function, signature, usual
from align.logic.formula import L, W
from align.logic.landscape import sixteen
from align.logic.structure import PAIR, Structure


def test_two_atoms():
    found = counts(2)
    assert found["structures"] == 256
    assert found["satisfiable"] == 225
    assert found["distinct_sides"] == 210
    assert found["distinct_functions"] == 187
    assert (found["monotone_pairs"], found["monotone_functions"], found["strictly_monotone"]) == (52, 40, 34)
    assert found["with_decisive_rows"] == usual() == 16
    assert found["of_one_core"] == 81
    assert set(MEANINGS) == set(found)


def test_functions_fall_into_the_classes_of_the_notes():
    groups = {}
    for top in range(1, 16):
        for bottom in range(1, 16):
            groups.setdefault(signature(Structure(PAIR, top, bottom)), []).append((top, bottom))
    sizes = [len(group) for group in groups.values()]
    assert (sizes.count(1), sizes.count(3), sizes.count(15)) == (174, 12, 1)


def test_with_a_reference_nothing_is_enumerated():
    found = counts(4)
    assert found["structures"] == 4_294_967_296
    assert found["with_decisive_rows"] == 268_435_456
    assert found["of_one_core"] == 43_046_721
    assert found["distinct_functions"] is None
    assert counts(16)["structures"] == 4**65536


def test_one_and_three_atoms():
    assert counts(1)["structures"] == 16
    assert counts(3)["structures"] == 65_536
    assert counts(3)["distinct_functions"] < 65_025
    for wrong in (0, 17):
        with pytest.raises(ValueError, match="from 1 to 16"):
            counts(wrong)


def test_structures_with_one_ratio_are_found():
    others = same_function(sixteen()["CE"])
    assert {(other.top, other.bottom) for other in others} == {(8, 2), (4, 1)}
    assert same_function(Structure.of(W)) == others
    assert same_function(sixteen()["CPO"]) == []
    assert same_function(Structure(PAIR, 3, 3)) == []
    assert same_function(Structure.of(W & L, W | L).reference_form()) == []
