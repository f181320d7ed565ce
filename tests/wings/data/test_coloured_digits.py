"""Coloured digits: what is held out never trains, captions say what pictures show, a seed says it all."""

from collections import Counter

import pytest
import torch

from align.wings.data.coloured_digits import (
    COLOURS,
    COMBINATIONS,
    NUMERALS,
    TEMPLATES,
    Settings,
    held_out_combinations,
    load,
)


@pytest.fixture(scope="module")
def small():
    settings = Settings(size=7, train_per_class=60, held_out=12, seed=3)
    return settings, load(settings)


def test_held_out_combinations_never_train(small):
    settings, found = small
    apart = set(held_out_combinations(settings))
    assert len(apart) == 12
    assert not apart & set(found.train.labels.tolist())
    assert not found.train.more["held_out"].any()
    named = {COMBINATIONS[one] for one in apart}
    assert not [caption for caption in found.train.captions if any(name in caption for name in named)]


def test_held_out_combinations_are_tested(small):
    settings, found = small
    apart = torch.tensor(held_out_combinations(settings))
    assert torch.equal(found.test.more["held_out"], torch.isin(found.test.labels, apart))
    assert set(apart.tolist()) <= set(found.test.labels.tolist())
    assert set(found.test.labels.tolist()) - set(apart.tolist())


def test_every_digit_and_every_colour_stays_in_training(small):
    _, found = small
    assert set(found.train.more["digit"].tolist()) == set(range(10))
    assert set(found.train.more["colour"].tolist()) == set(range(len(COLOURS)))


@pytest.mark.parametrize("count", [0, 1, 10, 12, 30])
@pytest.mark.parametrize("seed", range(5))
def test_no_digit_or_colour_loses_more_than_its_share(count, seed):
    apart = held_out_combinations(Settings(held_out=count, seed=seed))
    assert len(set(apart)) == count
    digits, colours = Counter(one // len(COLOURS) for one in apart), Counter(one % len(COLOURS) for one in apart)
    assert max(digits.values(), default=0) <= -(-count // 10)
    assert max(colours.values(), default=0) <= -(-count // len(COLOURS)) + 1


def test_labels_are_digit_and_colour(small):
    for gallery in (small[1].train, small[1].test):
        assert torch.equal(gallery.labels, gallery.more["digit"] * len(COLOURS) + gallery.more["colour"])
        assert gallery.classes == COMBINATIONS


def test_captions_say_what_the_labels_say(small):
    for gallery in (small[1].train, small[1].test):
        for caption, label in zip(gallery.captions, gallery.labels.tolist(), strict=True):
            colour, numeral = list(COLOURS)[label % len(COLOURS)], NUMERALS[label // len(COLOURS)]
            assert caption in {template.format(f"{colour} {numeral}") for template in TEMPLATES}
    assert {c.split()[0] for c in small[1].train.captions} >= {"a", "this", "somebody"}  # more than one template


def test_pictures_are_painted_in_their_colour(small):
    gallery = small[1].train
    for image, colour in zip(gallery.images, gallery.more["colour"].tolist(), strict=True):
        brightness = image.amax((1, 2))
        expected = torch.tensor(list(COLOURS.values())[colour])
        torch.testing.assert_close(brightness / brightness.max(), expected / expected.max())


def test_a_seed_says_it_all(small):
    settings, found = small
    again = load(settings)
    assert torch.equal(again.train.images, found.train.images)
    assert again.test.captions == found.test.captions
    other = load(Settings(size=7, train_per_class=60, held_out=12, seed=4))
    assert held_out_combinations(settings) != held_out_combinations(Settings(held_out=12, seed=4))
    assert other.train.captions != found.train.captions


def test_what_is_global_is_left_alone():
    torch.manual_seed(0)
    expected = torch.rand(3)
    torch.manual_seed(0)
    load(Settings(size=4, train_per_class=5))
    assert torch.equal(torch.rand(3), expected)


def test_nothing_held_out():
    found = load(Settings(size=4, train_per_class=100, held_out=0))
    assert not found.test.more["held_out"].any()
    assert len(set(found.train.labels.tolist())) == 60


@pytest.mark.parametrize("count", [-1, 31])
def test_too_much_held_out(count):
    with pytest.raises(ValueError, match=r"^held_out must lie in"):
        Settings(held_out=count)
