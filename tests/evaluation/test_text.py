import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.evaluation.text import distinct_n, repetition, words

texts = st.lists(st.text(alphabet="ab .,'\n", max_size=30), max_size=8)


def test_words_are_cut_at_space_and_punctuation():
    assert words("Well,well -- it's 3.5 km\n(no: 'four')") == ["well", "well", "it's", "3", "5", "km", "no", "four"]
    assert words("caf\u00e9 it\u2019s") == ["caf\u00e9", "it\u2019s"]
    assert words("... !?") == []


def test_distinct_by_hand():
    # the cat sat / the cat ran: 4 of 6 words, 3 of 4 pairs, 2 of 2 triples.
    two = ["The cat sat.", "the cat, ran"]
    assert distinct_n(two, 1) == pytest.approx(4 / 6)
    assert distinct_n(two, 2) == pytest.approx(3 / 4)
    assert distinct_n(two, 3) == 1.0


def test_no_ngram_crosses_texts():
    assert distinct_n(["a", "b", "a", "b"], 2) == 0.0
    assert distinct_n(["a b a b"], 2) == pytest.approx(2 / 3)


def test_repetition_by_hand():
    # "a b c a b c" has abc bca cab abc: one of four repeats; the second text repeats nothing.
    assert repetition(["a b c a b c"]) == 0.25
    assert repetition(["a b c a b c", "one two three four"]) == 0.125
    assert repetition(["no no no no no"]) == pytest.approx(2 / 3)


def test_repetition_in_another_text_is_none():
    assert repetition(["a b c d", "a b c d"]) == 0.0
    assert distinct_n(["a b c d", "a b c d"], 3) == 0.5


@pytest.mark.parametrize("nothing", [[], [""], ["", "?!"]])
def test_nothing_is_defined(nothing):
    assert distinct_n(nothing, 1) == 0.0
    assert repetition(nothing) == 0.0


def test_an_ngram_has_a_word():
    with pytest.raises(ValueError, match="at least 1"):
        distinct_n(["a"], 0)


@given(texts, st.integers(1, 4), st.randoms())
def test_shares_lie_in_the_unit_interval_and_ignore_order(some, n, shuffler):
    mixed = list(some)
    shuffler.shuffle(mixed)
    assert 0 <= distinct_n(some, n) <= 1
    assert 0 <= repetition(some, n) < 1
    assert distinct_n(mixed, n) == distinct_n(some, n)
    assert repetition(mixed, n) == pytest.approx(repetition(some, n))


@given(texts, st.integers(1, 3))
def test_saying_it_all_twice_halves_what_is_distinct(some, n):
    assert distinct_n(some * 2, n) == pytest.approx(distinct_n(some, n) / 2)
    assert repetition(some * 2, n) == pytest.approx(repetition(some, n))


@given(st.lists(st.text(alphabet="ab ", max_size=20), min_size=1, max_size=1), st.integers(1, 3))
def test_of_a_single_text_the_two_add_to_one(some, n):
    if len(words(some[0])) >= n:
        assert distinct_n(some, n) + repetition(some, n) == pytest.approx(1)
