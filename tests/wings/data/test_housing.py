import pytest
import torch
from mlxtend.data import boston_housing_data

from align.wings.data.housing import COLUMNS, HALVES, LEFT_OUT, Settings, load


def test_rows_in_the_unit_interval_without_the_column_left_out():
    splits = load(Settings())
    assert splits.train.images.shape == (354, 1, 1, len(COLUMNS) - 1)
    assert splits.test.images.shape == (152, 1, 1, len(COLUMNS) - 1)
    flat = splits.train.images.flatten(1)
    assert flat.amin(0).tolist() == [0.0] * 12
    assert flat.amax(0).tolist() == [1.0] * 12
    assert 0 <= splits.test.images.min() <= splits.test.images.max() <= 1
    kept = [place for place, name in enumerate(COLUMNS) if name != LEFT_OUT]
    assert len(kept) == 12
    raw = torch.tensor(boston_housing_data()[0])[:, kept]
    low, high = raw.amin(0), raw.amax(0)
    first = (splits.train.images[0, 0, 0] * (high - low) + low).tolist()
    assert any(torch.allclose(row, torch.tensor(first, dtype=row.dtype), rtol=0.05, atol=0.5) for row in raw)


def test_labels_are_halves_of_the_prices_trained_on():
    train = load(Settings()).train
    median = train.more["price"].median()
    assert [HALVES[label] for label in train.labels.tolist()] == [
        "dearer" if price > median else "cheaper" for price in train.more["price"]
    ]
    assert 0.4 < train.labels.double().mean() <= 0.5


def test_nothing_is_in_both_and_the_seed_decides():
    one, other = load(Settings()), load(Settings(seed=1))
    assert len(one.train) + len(one.test) == 506
    assert torch.equal(load(Settings()).test.images, one.test.images)
    assert not torch.equal(other.test.images, one.test.images)


def test_shares_out_of_range_are_refused():
    with pytest.raises(ValueError, match="test_share must lie in"):
        Settings(test_share=1.0)
