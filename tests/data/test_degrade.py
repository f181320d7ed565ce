"""Versions of responses: nested removal of whole tokens, the same every time, kept under a key of content."""

import datasets
import pytest

from align.data.degrade import answer_of, column_of, degraded, marked, mask_id, versions
from align.data.key_content import Answer
from align.data.prepare import prepare_pairs
from align.recipe.spo import DegreeSettings
from tests.conftest import pair_rows

TEXT = "the warm rain and the sun, a quiet train"


def pairs(tokenizer, count=6):
    return prepare_pairs(pair_rows(count), tokenizer).dataset


@pytest.mark.parametrize("text", [TEXT, " naïve café", "日本語 warm 🌧️ rain", "a\n\nb  c"])
def test_places_partition_the_text(tokenizer, text):
    ids = [*tokenizer(text, add_special_tokens=False).input_ids, tokenizer.eos_token_id]
    answer = answer_of(tokenizer, [0], ids)
    assert answer.text == text
    assert "".join(text[slice(*place)] for place in dict.fromkeys(answer.places)) == text
    assert answer.places[-1] == (0, 0)  # the closing token stands for no character


def of_words(text):
    words = [f" {word}" if number else word for number, word in enumerate(text.split())]
    starts = [sum(map(len, words[:number])) for number in range(len(words))]
    places = [(start, start + len(word)) for start, word in zip(starts, words, strict=True)]
    return Answer(text="".join(words), ids=list(range(10, 10 + len(words))), prompt_ids=[1], places=places)


def test_versions_lose_more_and_more_by_hand():
    answer = of_words("good warm day by the sea")
    ranked = [(5, 9), (0, 4), (21, 24)]  # warm, good, sea
    found = versions(answer, ranked, DegreeSettings(degrees=4))
    assert found == [[10, 12, 13, 14, 15], [12, 13, 14, 15], [12, 13, 14]]
    assert versions(answer, ranked, DegreeSettings(degrees=2, shares=[0, 0.5])) == [[12, 13, 14, 15]]
    masked = versions(answer, ranked, DegreeSettings(degrees=2, removal="mask"), mask=99)
    assert masked == [[99, 99, 12, 13, 14, 99]]


def test_versions_that_are_not_distinct_are_empty():
    answer = of_words("warm day")
    assert versions(answer, [], DegreeSettings(degrees=3)) == [[], []]
    assert versions(answer, [(0, 4)], DegreeSettings(degrees=4)) == [[], [], [11]]  # all of it is the last degree
    assert versions(answer, [(0, 8)], DegreeSettings(degrees=2)) == [[]]  # nothing is left
    longer = of_words("good warm day by the sea")
    assert versions(longer, [(5, 9), (0, 4)], DegreeSettings(degrees=4)) == [
        [10, 12, 13, 14, 15],
        [],
        [12, 13, 14, 15],
    ]


def test_the_control_has_as_many_rows_that_lack_nothing():
    answer = of_words("warm day")
    assert versions(answer, [(0, 4)], DegreeSettings(degrees=4, removal="nothing")) == [[], [], [10, 11]]


def test_what_is_removed_is_marked():
    answer = of_words("warm day, warm sea")
    shown = list(marked(answer, [(0, 4), (10, 14)], DegreeSettings(degrees=3)))
    assert [version["share"] for version in shown] == [0, 0.5, 1]
    assert [version["lacks"] for version in shown] == [0, 0.5, 1]
    assert shown[0]["pieces"] == [("warm day, warm sea", False)]
    assert shown[2]["pieces"] == [("warm", True), (" day,", False), (" warm", True), (" sea", False)]


def test_a_data_set_gets_columns_once(tokenizer, monkeypatch):
    rows = pairs(tokenizer)
    made = degraded(rows, tokenizer, DegreeSettings(extractor="tfidf", degrees=3))
    assert made.dataset.column_names == [*rows.column_names, column_of("chosen"), column_of("rejected")]
    first, closing = made.dataset[0], tokenizer.eos_token_id
    assert [len(ids) for ids in first["chosen_versions"]] == sorted(map(len, first["chosen_versions"]), reverse=True)
    assert all(ids[-1] == closing and len(ids) < len(first["chosen_ids"]) for ids in first["chosen_versions"] if ids)
    assert 0 <= made.missing < 1

    def never(*_):
        raise AssertionError("made again")

    monkeypatch.setattr("align.data.degrade._with_versions", never)
    again = degraded(rows, tokenizer, DegreeSettings(extractor="tfidf", degrees=3))
    for column in ("prompt_ids", "chosen_versions", "rejected_versions"):
        assert again.dataset[column][:] == made.dataset[column][:]
    assert again.dataset._fingerprint == made.dataset._fingerprint
    with pytest.raises(AssertionError, match="made again"):
        degraded(rows, tokenizer, DegreeSettings(extractor="tfidf", degrees=4))


def test_the_same_rows_elsewhere_have_the_same_versions(tokenizer, monkeypatch):
    """The key is content: not the file the rows lie in, but every column, since all are kept."""
    rows = pairs(tokenizer)
    settings = DegreeSettings(extractor="tfidf", degrees=3)
    made = degraded(rows, tokenizer, settings)
    count = [not ids for side in ("chosen", "rejected") for row in made.dataset[column_of(side)] for ids in row]
    assert made.missing == pytest.approx(sum(count) / len(count))
    monkeypatch.setattr("align.data.degrade._with_versions", None)
    copied = datasets.Dataset.from_list(list(rows), features=rows.features)
    found = degraded(copied, tokenizer, settings).dataset
    assert found["chosen_versions"][:] == made.dataset["chosen_versions"][:]
    with pytest.raises(TypeError):
        degraded(copied.select(range(1, len(copied))), tokenizer, settings)
    with pytest.raises(TypeError):
        degraded(copied.map(lambda row: {"weight": 2.0}), tokenizer, settings)


def test_one_side_alone(tokenizer):
    made = degraded(pairs(tokenizer), tokenizer, DegreeSettings(extractor="tfidf", sides="rejected"))
    assert column_of("chosen") not in made.dataset.column_names


def test_surprisal_is_kept_apart_by_model(tokenizer):
    rows, calls = pairs(tokenizer, 2), []

    def surprisals(answers):
        calls.append(len(answers))
        return [[float(number) for number in range(len(answer.ids))] for answer in answers]

    settings = DegreeSettings(extractor="surprisal", sides="chosen")
    for model in ("a", "a", "b"):
        degraded(rows, tokenizer, settings, surprisals=surprisals, model=model)
    assert calls == [2, 2]


def test_masks_are_one_token(tokenizer):
    settings = DegreeSettings(removal="mask", mask_token="the")
    assert mask_id(tokenizer, settings) == tokenizer("the", add_special_tokens=False).input_ids[0]
    rows = degraded(pairs(tokenizer), tokenizer, DegreeSettings(extractor="tfidf", removal="mask", mask_token="the"))
    first = rows.dataset[0]
    assert all(len(ids) in (0, len(first["chosen_ids"])) for ids in first["chosen_versions"])
    with pytest.raises(ValueError, match=r"spo.versions.mask_token '日本' is \d+ tokens here"):
        mask_id(tokenizer, DegreeSettings(removal="mask", mask_token="日本"))


def test_a_text_without_words_has_no_versions(tokenizer):
    rows = datasets.Dataset.from_list([{"prompt": "the day", "chosen": " ...", "rejected": " bad"}])
    prepared = prepare_pairs(rows, tokenizer).dataset
    assert degraded(prepared, tokenizer, DegreeSettings(extractor="yake")).dataset[0]["chosen_versions"] == [[]] * 3
