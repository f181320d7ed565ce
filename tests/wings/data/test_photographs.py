import pytest
import torch

from align.wings.data import photographs
from align.wings.data.photographs import Settings, load, noise


@pytest.fixture(scope="module")
def splits():
    return load(Settings(train_per_picture=3, test_per_picture=2))


def test_tiles_are_noisy_with_their_clean_ones(splits):
    for gallery, size, names, count in (
        (splits.train, 60, photographs.TRAIN, 3),
        (splits.test, 120, photographs.TEST, 2),
    ):
        assert gallery.images.shape == gallery.more["clean"].shape == (count * len(names), 1, size, size)
        assert gallery.classes == names
        assert gallery.labels.bincount().tolist() == [count] * len(names)
        added = gallery.images - gallery.more["clean"]
        assert 0.08 < float(added.std()) < 0.1  # some is cut off at black and white
        assert gallery.images.min() >= 0
        assert gallery.images.max() <= 1


def test_held_out_pictures_are_others_and_show_no_faces():
    assert not set(photographs.TRAIN) & set(photographs.TEST)
    assert "astronaut" not in photographs.TRAIN + photographs.TEST


def test_tiles_do_not_overlap():
    picture = torch.arange(70 * 50.0).view(1, 70, 50)
    tiles = photographs._tiles(picture, 20)
    assert tiles.shape == (6, 1, 20, 20)
    assert len(tiles.unique()) == tiles.numel()
    assert torch.equal(tiles[1, 0], picture[0, :20, 20:40])


def test_the_seed_decides_all(splits):
    again = load(Settings(train_per_picture=3, test_per_picture=2))
    other = load(Settings(train_per_picture=3, test_per_picture=2, seed=1))
    assert torch.equal(splits.train.images, again.train.images)
    assert torch.equal(splits.test.images, again.test.images)
    assert not torch.equal(splits.train.images, other.train.images)


@pytest.mark.parametrize(
    ("kind", "beside", "diagonal", "apart"), [("correlated", 2 / 3, 4 / 9, 1 / 6), ("independent", 0, 0, 0)]
)
def test_noise_has_unit_variance_and_the_binomials_correlations(kind, beside, diagonal, apart):
    found = noise(kind, (1000, 900), torch.Generator().manual_seed(0)).double()
    assert found.shape == (1000, 900)
    assert float(found.mean()) == pytest.approx(0, abs=0.02)
    assert float(found.var()) == pytest.approx(1, abs=0.02)
    assert float((found[:, 1:] * found[:, :-1]).mean()) == pytest.approx(beside, abs=0.02)
    assert float((found[1:, 1:] * found[:-1, :-1]).mean()) == pytest.approx(diagonal, abs=0.02)
    assert float((found[2:] * found[:-2]).mean()) == pytest.approx(apart, abs=0.02)
    assert float((found[3:] * found[:-3]).mean()) == pytest.approx(0, abs=0.02)
    assert float(found[0].var()) == pytest.approx(1, abs=0.2)


def test_no_noise_leaves_the_clean_picture():
    found = load(Settings(sigma=0.0, train_per_picture=1, test_per_picture=1)).train
    assert torch.equal(found.images, found.more["clean"])


def test_more_tiles_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"^coins has 30 tiles of 60 pixels, and 31 are asked for"):
        load(Settings(train_per_picture=31))


@pytest.mark.parametrize(
    ("name", "value"),
    [("size", 4), ("test_size", 300), ("train_per_picture", 0), ("test_per_picture", 0), ("sigma", -0.1)],
)
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        Settings(**{name: value})
