"""Which prompts a part of a list holds."""

import pytest

from align.sampling.prompts import load_prompts, split_of


def test_parts_are_apart_and_make_the_whole():
    train, held_out = load_prompts("sentiment", "train"), load_prompts("sentiment", "heldout")
    assert not set(train) & set(held_out)
    assert sorted([*train, *held_out]) == sorted(load_prompts("sentiment"))
    assert 0.2 < len(held_out) / (len(train) + len(held_out)) < 0.4


def test_a_prompts_part_does_not_depend_on_its_neighbours(tmp_path):
    prompts = load_prompts("sentiment")
    file = tmp_path / "more.txt"
    file.write_text("\n".join(["a new one", *prompts[50:60], "", prompts[50]]))
    assert load_prompts(str(file), "heldout") == [p for p in ["a new one", *prompts[50:60]] if split_of(p) == "heldout"]


def test_limit_takes_the_first():
    assert load_prompts("sentiment", "train", 5) == load_prompts("sentiment", "train")[:5]


def test_mistakes(tmp_path):
    with pytest.raises(ValueError, match="lists that come with align: sentiment"):
        load_prompts("sentimental")
    (tmp_path / "empty.txt").write_text("\n\n")
    with pytest.raises(ValueError, match="no prompt in its part 'all'"):
        load_prompts(str(tmp_path / "empty.txt"))
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9\n")
    with pytest.raises(ValueError, match="not UTF-8 text: byte 3"):
        load_prompts(str(tmp_path / "latin.txt"))
