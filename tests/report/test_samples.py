import json

import pytest

from align.evaluation.comparison import Samples, samples_jsonl
from align.report.samples import beside_each_other, lengths, read_samples, spaced
from tests.report.conftest import sample


@pytest.fixture
def read(tmp_path):
    def written(*rows):
        file = tmp_path / "samples.jsonl"
        file.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")
        return read_samples(file)

    return written


def test_what_a_run_writes_is_read_back(tmp_path):
    prompts, texts = ["p", "q\n"], ["line\u2028separator \U0001f327", "\u05e9\u05dc\u05d5\u05dd\r\n  <b>"]
    base = Samples(prompts=prompts, completions=["", "x"], scores=[0, 0.5], lengths=[1, 2], ended=[True, False])
    aligned = Samples(prompts=prompts, completions=texts, scores=[1.5, -1], lengths=[9, 8], ended=[False, True])
    file = tmp_path / "samples.jsonl"
    file.write_bytes(samples_jsonl(base, aligned).encode())
    first, second = read_samples(file)
    assert [first.prompt, second.prompt] == prompts
    assert [first.aligned, second.aligned] == texts
    assert (first.base_score, first.aligned_score, first.base_tokens, first.aligned_ended) == (0.0, 1.5, 1, False)


def test_no_file_has_no_samples(tmp_path):
    assert read_samples(tmp_path / "absent") == []


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"base": 3}, "'base' must be a str, got 3"),
        ({"aligned_score": "high"}, "'aligned_score' must be a int or float"),
        ({"base_score": True}, "'base_score'"),
        ({"base_tokens": 1.5}, "'base_tokens' must be a int"),
        ({"aligned_ended": 1}, "'aligned_ended' must be a bool"),
    ],
)
def test_a_broken_row_is_named(read, change, words):
    with pytest.raises(ValueError, match=rf"line 2 of .*samples.jsonl: {words}"):
        read(sample("p"), sample("q") | change)


def test_only_texts_and_scores_are_needed(read):
    row = {key: value for key, value in sample("p").items() if not key.endswith(("_tokens", "_ended"))}
    (found,) = read(row)
    assert found.base_tokens is None
    assert lengths([found]) == {"base": [], "aligned": []}


def test_samples_of_a_prompt_stand_beside_each_other_in_order(read):
    first = read(sample("p", "1"), sample("q", "2"), sample("p", "3"))
    second = read(sample("r", "4"), sample("p", "5"))
    rows = beside_each_other([first, second])
    shown = [(row.prompt, [s and s.aligned for s in row.samples]) for row in rows]
    assert shown == [("p", ["1", "5"]), ("q", ["2", None]), ("p", ["3", None]), ("r", [None, "4"])]


def test_a_base_that_all_share_is_shown_once(read):
    same, other = read(sample("p"))[0], read(sample("p", base="else"))[0]
    assert beside_each_other([[same], [same]])[0].common_base is same
    assert beside_each_other([[same], [other]])[0].common_base is None


@pytest.mark.parametrize(("count", "shown"), [(1, 1), (5, 3), (3, 3), (0, 0)])
def test_spaced_keeps_the_ends(count, shown):
    found = spaced(list(range(count)), 3)
    assert len(found) == shown
    if count > 1:
        assert (found[0], found[-1]) == (0, count - 1)
