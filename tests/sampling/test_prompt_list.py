import re
from importlib.resources import files
from itertools import combinations

import pytest


@pytest.fixture(scope="module")
def prompts():
    return (files("align") / "sampling" / "lists" / "sentiment.txt").read_text(encoding="ascii").splitlines()


def test_there_are_many_and_none_twice(prompts):
    assert len(prompts) >= 300
    assert len({" ".join(re.findall(r"\w+", prompt.lower())) for prompt in prompts}) == len(prompts)


def test_none_is_nearly_another(prompts):
    bags = [frozenset(re.findall(r"[a-z]+", prompt.lower())) for prompt in prompts]
    near = [
        (first, second) for first, second in combinations(bags, 2) if len(first & second) > 0.7 * len(first | second)
    ]
    assert near == []


def test_each_is_a_short_plain_line(prompts):
    for prompt in prompts:
        assert prompt == " ".join(prompt.split())
        assert prompt.isascii()
        assert prompt.isprintable()
        assert 4 <= len(prompt.split()) <= 14, prompt


def test_they_begin_in_many_ways_and_speak_of_many_things(prompts):
    words = [word for prompt in prompts for word in re.findall(r"[a-z]+", prompt.lower())]
    openings = {" ".join(prompt.split()[:2]) for prompt in prompts}
    assert len(openings) > 60
    assert len(set(words)) > 800


def test_none_asks_for_a_sentiment(prompts):
    asked = re.compile(
        r"\b(positive|negative|happy|sad|cheerful|gloomy|optimistic|pessimistic|sentiment)\b", re.IGNORECASE
    )
    assert [prompt for prompt in prompts if asked.search(prompt)] == []


def test_any_start_of_the_list_is_varied(prompts):
    for start in range(0, 300, 60):
        first_words = [prompt.split()[0] for prompt in prompts[start : start + 60]]
        assert max(map(first_words.count, first_words)) <= 25
