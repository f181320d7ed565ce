"""scikit-learn's digits: all of them, once, split as asked."""

import pytest
import torch
from sklearn.datasets import load_digits

from align.wings.data.digits import Settings, load


@pytest.fixture(scope="module")
def digits():
    return load(Settings())


def keys(gallery):
    return [
        (*row.flatten().tolist(), label) for row, label in zip(gallery.images, gallery.labels.tolist(), strict=True)
    ]


def test_all_of_them_are_there_once(digits):
    found = load_digits()
    own = sorted(
        (*(row.flatten() / 16).tolist(), int(label)) for row, label in zip(found.images, found.target, strict=True)
    )
    assert sorted(keys(digits.train) + keys(digits.test)) == own
    assert len(digits.train) + len(digits.test) == 1797


def test_pictures_are_small_grey_and_in_range(digits):
    assert digits.train.images.shape[1:] == (1, 8, 8)
    assert digits.train.images.dtype == torch.float32
    assert (digits.train.images.min(), digits.train.images.max()) == (0, 1)
    assert digits.train.classes == tuple("0123456789")


def test_each_class_is_split_by_its_share_and_the_seed(digits):
    for label in range(10):
        kept, apart = ((part.labels == label).sum().item() for part in (digits.train, digits.test))
        assert apart == round(0.4 * (kept + apart))
    fewer = load(Settings(test_share=0.1))
    assert len(fewer.test) == pytest.approx(180, abs=5)
    assert torch.equal(load(Settings()).test.images, digits.test.images)
    assert not torch.equal(load(Settings(seed=1)).test.images, digits.test.images)


@pytest.mark.parametrize("share", [0.0, 1.0, -0.2])
def test_the_share_is_checked(share):
    with pytest.raises(ValueError, match=r"test_share must lie in \(0, 1\)"):
        Settings(test_share=share)
