"""Pairs from scored samples."""

import json

import pytest

from align.recipe.schema import SynthSettings
from align.sampling.generate import Completion
from align.sampling.synth import best_against_worst, synthesise, write_pairs


def completion(text, ended=True):
    return Completion(prompt="p", text=text, prompt_ids=[1], ids=[2], ended=ended)


def test_best_against_worst():
    scored = [(completion("so"), 0.1), (completion("good", ended=False), 0.9), (completion("bad"), -0.5)]
    pair = best_against_worst(scored, min_gap=0.5)
    assert (pair.chosen[0]["content"], pair.rejected[0]["content"]) == ("good", "bad")
    assert (pair.chosen_score, pair.rejected_score) == (0.9, -0.5)
    assert (pair.chosen_ended, pair.rejected_ended) == (False, True)


@pytest.mark.parametrize(
    "scored",
    [
        [(completion("a"), 0.1), (completion("b"), 0.2)],
        [(completion("a"), 0.0), (completion(""), 1.0)],
        [(completion("a"), 0.3), (completion("b"), 0.3)],
    ],
    ids=["gap too small", "no text", "a tie"],
)
def test_what_makes_no_pair(scored):
    assert best_against_worst(scored, min_gap=0.5) is None


def test_a_gap_of_zero_still_needs_a_difference():
    assert best_against_worst([(completion("a"), 0.3), (completion("b"), 0.3)], min_gap=0.0) is None


def test_nothing_is_overwritten(tmp_path):
    pair = best_against_worst([(completion("a"), 0.0), (completion("b"), 1.0)], min_gap=0.5)
    file = tmp_path / "out" / "pairs.jsonl"
    write_pairs(file, [pair])
    write_pairs(file, [pair])
    assert json.loads(file.read_text())["chosen"] == [{"role": "assistant", "content": "b"}]
    with pytest.raises(ValueError, match="exists with other content"):
        write_pairs(file, [pair, pair])


def test_no_pair_at_all_says_what_to_change(model, tokenizer, tmp_path):
    (tmp_path / "flat.py").write_text("def score(prompts, completions):\n    return [0.0] * len(completions)\n")
    (tmp_path / "prompts.txt").write_text("the day\nthe night\n")
    settings = SynthSettings(
        prompts=str(tmp_path / "prompts.txt"),
        split="all",
        scorer=f"{tmp_path / 'flat.py'}:score",
        samples=2,
        max_new_tokens=3,
    )
    with pytest.raises(ValueError, match="lower min_gap, or raise samples or temperature"):
        synthesise(model, tokenizer, settings)
