import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from align.evaluation.comparison import Samples, compare_samples, samples_jsonl, samples_markdown, side_by_side
from align.recipe.schema import EvaluationSettings

SETTINGS = EvaluationSettings(resamples=500)


RATIOS = [1.0, 2.0, 3.0, 6.0]


def sampled(scores, *, prompts=None, completions=None, lengths=None, ended=None):
    count = len(scores)
    return Samples(
        prompts=prompts or [f"prompt {row}" for row in range(count)],
        completions=completions or [f"completion {row}" for row in range(count)],
        scores=scores,
        lengths=lengths or [10] * count,
        ended=ended or [True] * count,
    )


@pytest.fixture
def base():
    return sampled(
        [0.0, 0.5, -0.5, 0.2],
        prompts=["p", "p", "q", "q"],
        completions=["a a", "a b", "a a", "a b"],
        ended=[True, False, False, False],
    )


@pytest.fixture
def aligned():
    return sampled(
        [1.0, 0.5, 0.5, 0.0],
        prompts=["p", "p", "q", "q"],
        completions=["so so so so", "a b c d", "a", "e f"],
        lengths=[10, 20, 30, 60],
    )


def test_by_hand(base, aligned):
    result = compare_samples(base, aligned, RATIOS, SETTINGS)
    assert (result["prompts"], result["samples"], result["confidence"]) == (2, 4, 0.95)
    assert result["reward"]["base"]["value"] == pytest.approx(0.05)
    assert result["reward"]["aligned"]["value"] == pytest.approx(0.5)
    assert result["reward"]["difference"]["value"] == pytest.approx(0.45)
    assert result["win_rate"]["value"] == pytest.approx((1 + 0.5 + 1 + 0) / 4)
    assert result["win_rate"]["ties"] == 0.25
    assert result["kl"]["value"] == pytest.approx(3.0)
    assert result["kl"]["per_token"] == pytest.approx(12 / 120)
    assert result["distinct_1"] == {"base": pytest.approx(2 / 8), "aligned": pytest.approx(7 / 11)}
    assert result["distinct_2"] == {"base": pytest.approx(2 / 4), "aligned": pytest.approx(5 / 7)}
    assert result["repetition"] == {"base": 0.0, "aligned": pytest.approx(0.5 / 4)}
    assert result["length_tokens"] == {"base": 10.0, "aligned": 30.0}
    assert result["ended"] == {"base": 0.25, "aligned": 1.0}
    assert result["scores"]["aligned"] == [1.0, 0.5, 0.5, 0.0]


def test_intervals_resample_prompts(base, aligned):
    # With two prompts each draw is p p, p q or q q: the difference is 0.5, 0.45 or 0.4, KL 1.5, 3 or 4.5.
    result = compare_samples(base, aligned, RATIOS, SETTINGS)
    difference, kl = result["reward"]["difference"], result["kl"]
    assert (difference["low"], difference["high"]) == (pytest.approx(0.4), pytest.approx(0.5))
    assert (kl["low"], kl["high"]) == (pytest.approx(1.5), pytest.approx(4.5))


def test_it_is_ready_for_json(base, aligned):
    result = compare_samples(base, aligned, RATIOS, SETTINGS)
    assert json.loads(json.dumps(result, allow_nan=False)) == result


def test_a_model_compared_with_itself_gains_nothing(base):
    result = compare_samples(base, base, [0.0] * 4, SETTINGS)
    assert result["reward"]["difference"] == {"value": 0.0, "low": 0.0, "high": 0.0}
    assert result["win_rate"] == {"value": 0.5, "low": 0.5, "high": 0.5, "ties": 1.0}
    assert result["kl"]["value"] == 0.0


def test_exchanging_the_models_mirrors_reward_and_wins(base, aligned):
    there, back = compare_samples(base, aligned, RATIOS, SETTINGS), compare_samples(aligned, base, RATIOS, SETTINGS)
    assert back["reward"]["difference"]["value"] == pytest.approx(-there["reward"]["difference"]["value"])
    assert back["win_rate"]["value"] == pytest.approx(1 - there["win_rate"]["value"])


def test_refuses_what_does_not_pair(base, aligned):
    with pytest.raises(ValueError, match="row 3 has two prompts: 'q' and 'r'"):
        compare_samples(base, replace(aligned, prompts=["p", "p", "q", "r"]), RATIOS, SETTINGS)
    with pytest.raises(ValueError, match="4 and 2"):
        compare_samples(base, sampled([1.0, 2.0]), RATIOS, SETTINGS)


def test_refuses_what_is_not_finite(base, aligned):
    with pytest.raises(ValueError, match="1 of 4 aligned scores are not finite"):
        compare_samples(base, replace(aligned, scores=[float("nan"), 0.0, 0.0, 0.0]), RATIOS, SETTINGS)
    with pytest.raises(ValueError, match="log-ratios of the aligned samples are not finite"):
        compare_samples(base, aligned, [0.0, 1.0, 2.0, float("-inf")], SETTINGS)


def test_samples_need_rows_and_all_their_columns(base):
    with pytest.raises(ValueError, match="'lengths': 1"):
        replace(base, lengths=[3])
    with pytest.raises(ValueError, match="no samples"):
        sampled([])


def many(count, score=0.0):
    long = "word " * 30
    return sampled([score] * count, prompts=[f"prompt number {row} {long}" for row in range(count)])


@given(st.integers(1, 60), st.integers(1, 12), st.integers(40, 160))
def test_table_fits_and_spreads_from_first_to_last(count, rows, width):
    table = side_by_side(many(count), many(count, 0.75), rows=rows, width=width)
    shown = [row for row in range(count) if f"completion {row}" in " ".join(table.replace("|", " ").split())]
    assert all(len(line) <= width for line in table.splitlines())
    assert table.count("+0.75") == min(rows, count)
    if width >= 80:
        assert 0 in shown
        assert rows == 1 or count - 1 in shown


def test_table_shows_both_scores_and_says_how_rows_were_taken():
    table = side_by_side(many(30), many(30, 0.75), rows=3)
    assert table.startswith("3 of 30 samples, evenly spaced over the list and not picked by score")
    assert all(f"+0.00 completion {row}" in table and f"+0.75 completion {row}" in table for row in (0, 14, 29))


def test_rows_do_not_depend_on_scores():
    good, bad = many(30, 0.9), many(30, -0.9)
    table = side_by_side(good, good, rows=5)
    assert side_by_side(good, bad, rows=5).count("prompt number") == table.count("prompt number")
    assert side_by_side(bad, bad, rows=5).replace("-0.90", "+0.90") == table


def test_table_tames_what_a_model_writes():
    wild = sampled([0.1, 0.2], completions=["line\nbreak \x1b[31mred\x07", "   "], ended=[False, True])
    table = side_by_side(wild, wild, width=200)
    assert "+0.10 line break [31mred [...]" in table
    assert "+0.20 (nothing)" in table
    assert "\x1b" not in table


def test_markdown_is_escaped():
    wild = sampled([0.1], completions=["a | b <script> *x* [y](z)\n# end"])
    last = samples_markdown(wild, wild).splitlines()[-1]
    assert last.replace("\\|", "").count("|") == 4
    assert "&lt;script&gt;" in last
    assert r"\*x\* \[y\](z) \# end" in last


def test_every_row_as_json(base, aligned):
    rows = [json.loads(line) for line in samples_jsonl(base, aligned).splitlines()]
    assert [row["prompt"] for row in rows] == ["p", "p", "q", "q"]
    assert rows[3] == {
        **{"prompt": "q", "base": "a b", "base_score": 0.2, "base_tokens": 10, "base_ended": False},
        **{"aligned": "e f", "aligned_score": 0.0, "aligned_tokens": 60, "aligned_ended": True},
    }
    with pytest.raises(ValueError, match="two prompts"):
        samples_jsonl(base, replace(aligned, prompts=["p", "p", "q", "r"]))


def test_refuses_a_table_too_small():
    with pytest.raises(ValueError, match="rows"):
        side_by_side(many(3), many(3), rows=0)
    with pytest.raises(ValueError, match="width"):
        side_by_side(many(3), many(3), width=39)
