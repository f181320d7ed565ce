import pytest
import torch

from align.wings.data import patches
from align.wings.data.patches import FILES, Settings, load, pictures
from align.wings.probes import knn_accuracy

SMALL = Settings(train_per_picture=4, test_per_picture=2)


@pytest.fixture(scope="module")
def whole():
    return pictures()


@pytest.fixture(autouse=True)
def _read_once(whole, monkeypatch):
    monkeypatch.setattr(patches, "pictures", lambda: whole)


def found_in(half, patch):
    size = patch.shape[-1]
    windows = half.unfold(0, size, 1).unfold(1, size, 1)
    candidates = (windows[..., 0, 0] == patch[0, 0]).nonzero()
    for a, b in ((0, -1), (9, 11), (20, 15), (-1, 0), (-1, -1)):
        candidates = candidates[windows[candidates[:, 0], candidates[:, 1], a, b] == patch[a, b]]
    return any(torch.equal(windows[top, left], patch) for top, left in candidates.tolist())


def test_as_many_of_each_picture_as_asked_for():
    splits = load(SMALL)
    assert splits.train.images.shape == (4 * len(FILES), 1, 32, 32)
    assert splits.test.images.shape == (2 * len(FILES), 1, 32, 32)
    assert splits.train.labels.bincount().tolist() == [4] * len(FILES)
    assert splits.test.labels.bincount().tolist() == [2] * len(FILES)
    assert splits.train.classes == splits.test.classes
    assert len(set(splits.train.classes)) == len(FILES)


def test_grey_and_between_black_and_white(whole):
    for name, picture in whole.items():
        assert picture.ndim == 2, name
        assert 0 <= picture.min() < picture.max() <= 1, name
        assert max(picture.shape) <= 512, name
        assert min(picture.shape[0], picture.shape[1] // 2) >= 48, name  # the largest patch fits into a half


def test_training_patches_are_of_the_left_half_and_held_out_ones_of_the_right(whole):
    splits = load(Settings(train_per_picture=2, test_per_picture=2))
    for gallery, left in ((splits.train, True), (splits.test, False)):
        for patch, label in zip(gallery.images[:, 0], gallery.labels.tolist(), strict=True):
            picture = whole[gallery.classes[label]]
            middle = picture.shape[1] // 2
            assert found_in(picture[:, :middle] if left else picture[:, middle:], patch), gallery.classes[label]


def test_the_seed_decides_where():
    assert torch.equal(load(SMALL).train.images, load(SMALL).train.images)
    other = load(Settings(train_per_picture=4, test_per_picture=2, seed=1))
    assert not torch.equal(load(SMALL).train.images, other.train.images)


def test_pixels_alone_say_little_but_not_nothing():
    splits = load(Settings(train_per_picture=40, test_per_picture=20))
    train, test = splits.train, splits.test
    assert 2 / len(FILES) < knn_accuracy(train.images, train.labels, test.images, test.labels) < 0.4


def test_faces_are_left_out():
    assert not [name for name in FILES if "astronaut" in name or "lfw" in name]


def test_the_largest_patches_fit_into_every_picture():
    assert load(Settings(size=48, train_per_picture=2, test_per_picture=2)).train.images.shape[-1] == 48


@pytest.mark.parametrize(
    ("name", "value"), [("size", 7), ("size", 49), ("train_per_picture", 0), ("test_per_picture", 0)]
)
def test_what_cannot_be_cut_is_refused(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        Settings(**{name: value})


def test_a_release_with_other_pictures_is_named(monkeypatch):
    monkeypatch.setattr(patches, "FILES", (*FILES, "nowhere.png"))
    with pytest.raises(ValueError, match=r"does not carry nowhere.png; 0.26 does"):
        pictures()
