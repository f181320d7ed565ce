"""Scorers: the lexicon's own published examples, and a user's function, checked."""

import sys

import pytest

from align.sampling.scorers import load_scorer


def test_vader_scores_as_its_authors_publish():
    """Examples of the lexicon's README: 0.8316 and -0.5849."""
    scores = load_scorer("vader")(["", ""], ["VADER is smart, handsome, and funny.", "The book was kind of bad."])
    assert scores[0] == pytest.approx(0.8316)
    assert scores[1] < 0


def test_without_the_package_the_install_line_is_printed(monkeypatch):
    from align.sampling import scorers

    scorers._vader.cache_clear()
    monkeypatch.setitem(sys.modules, "vaderSentiment.vaderSentiment", None)
    with pytest.raises(ValueError, match="pip install vaderSentiment"):
        load_scorer("vader")
    scorers._vader.cache_clear()


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "def length(prompts, completions):\n    return [len(c) for c in completions]\n"
        "def short(prompts, completions):\n    return [1.0]\n"
        "def nan(prompts, completions):\n    return [float('nan')] * len(completions)\n"
    )
    return path


def test_a_users_function(file):
    assert load_scorer(f"{file}:length")(["p", "p"], ["ab", "abc"]) == [2.0, 3.0]


@pytest.mark.parametrize(
    ("function", "message"),
    [("short", "returned 1 scores for 2 completions"), ("nan", "returned nan for completion 'ab'")],
)
def test_what_it_returns_is_checked(file, function, message):
    with pytest.raises(ValueError, match=message):
        load_scorer(f"{file}:{function}")(["p", "p"], ["ab", "abc"])


@pytest.mark.parametrize(
    ("name", "message"),
    [("vadr", "no scorer 'vadr'"), ("absent.py:f", "no Python file")],
)
def test_mistakes(name, message):
    with pytest.raises(ValueError, match=message):
        load_scorer(name)


def test_a_missing_function_is_named(file):
    with pytest.raises(ValueError, match="defines no function 'absent'"):
        load_scorer(f"{file}:absent")


def test_a_scorer_that_fails_is_named(tmp_path):
    (tmp_path / "bad.py").write_text("def bad(prompts, completions):\n    return [None]\n")
    with pytest.raises(ValueError, match=r"bad.py:bad failed: TypeError"):
        load_scorer(f"{tmp_path / 'bad.py'}:bad")(["p"], ["c"])
