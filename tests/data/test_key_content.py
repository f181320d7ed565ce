"""Extractors: the same interface, disjoint stretches, the most telling first."""

from itertools import pairwise

import pytest

from align.data.key_content import Answer, identity_of, load_extractor, removed, stretches_of

TEXTS = [
    "The quiet river runs below the old bridge, and the quiet river is cold.",
    "We walked home. Nobody liked the old bridge at all.",
    "of the and",
    "",
]


def answers(texts=TEXTS):
    """Each word an id, with the blanks before it."""
    made = []
    for text in texts:
        places, start = [], 0
        for word in text.split():
            end = text.index(word, start) + len(word)
            places.append((start, end))
            start = end
        made.append(Answer(text=text, ids=list(range(len(places))), prompt_ids=[0], places=places))
    return made


@pytest.mark.parametrize("name", ["rake", "yake", "tfidf"])
def test_extractors_rank_disjoint_stretches(name):
    extract = load_extractor(name)
    found = extract(answers())
    assert found == extract(answers())  # the same again
    assert [len(ranking) > 0 for ranking in found] == [True, True, False, False]
    for text, ranking in zip(TEXTS, found, strict=True):
        ordered = sorted(ranking)
        assert all(start < end <= len(text) for start, end in ordered)
        assert all(a[1] <= b[0] for a, b in pairwise(ordered))
    said = {TEXTS[0][slice(*stretch)].lower() for stretch in found[0]}
    assert not said & {"the", "and", "below the", "is"}
    assert any("river" in words for words in said)


def test_rake_scores_by_degree_over_frequency():
    """Scores of Rose et al.: words of longer phrases have larger degrees; by hand, 'very long quiet river' is first."""
    (found,) = load_extractor("rake")(answers(["A bridge, and the broad quiet river; a bridge."]))
    text = "A bridge, and the broad quiet river; a bridge."
    assert [text[slice(*stretch)] for stretch in found] == ["broad quiet river", "bridge", "bridge"]


def test_tfidf_ranks_what_other_texts_lack():
    (first, second, *_) = load_extractor("tfidf")(answers())
    said = [TEXTS[1][slice(*stretch)].lower() for stretch in second]
    assert said.index("walked") < said.index("bridge")  # the bridge is in both
    assert TEXTS[0][slice(*first[0])].lower() in ("quiet", "river")  # twice here, nowhere else


def test_surprisal_ranks_words_above_the_mean():
    given = answers(["a warm day"])
    (found,) = load_extractor("surprisal", lambda _: [[0.5, 9.0, 4.0]])(given)
    assert found == [(2, 6)]
    with pytest.raises(ValueError, match="needs a model"):
        load_extractor("surprisal")


def test_a_function_of_ones_own(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text("def key(texts):\n    return [['river', (0, 3)] for _ in texts]\n")
    name = f"{file}:key"
    assert load_extractor(name)(answers(TEXTS[:1])) == [[(10, 15), (57, 62), (0, 3)]]
    before = identity_of(name)
    file.write_text("def key(texts):\n    return [['bridge']]\n")
    assert identity_of(name) != before


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("return [[(0, 999)]]", r"returned \(0, 999\), which is no phrase and no pair \(start, end\)"),
        ("return [[7]]", "returned 7, which is no phrase"),
        ("return [[(0, 1, 2)]]", "which is no phrase and no pair"),
        ("return [[(0.0, 1.5)]]", "which is no phrase and no pair"),
        ("return []", "returned 0 rankings for 1 texts"),
        ("return 1 / 0", "failed: ZeroDivisionError"),
    ],
)
def test_faults_of_a_function_are_named(tmp_path, body, message):
    file = tmp_path / "mine.py"
    file.write_text(f"def key(texts):\n    {body}\n")
    with pytest.raises(ValueError, match=message):
        load_extractor(f"{file}:key")(answers(TEXTS[:1]))
    with pytest.raises(ValueError, match="defines no function 'other'"):
        load_extractor(f"{file}:other")


def test_an_unknown_extractor():
    with pytest.raises(ValueError, match="no extractor 'rack'; known: rake, yake, tfidf, surprisal"):
        load_extractor("rack")


def test_phrases_are_found_across_punctuation_and_case():
    assert stretches_of("Warm,  rain fell; warmly.", ["warm rain", "warm"]) == [(0, 11)]
    assert stretches_of("a", ["...", "b"]) == []


def test_removed_is_rounded_up():
    ranked = [(0, 1), (2, 3), (4, 5)]
    assert [len(removed(ranked, share)) for share in (0, 1 / 3, 0.34, 2 / 3, 1)] == [0, 1, 2, 2, 3]
