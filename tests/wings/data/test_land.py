import numpy as np
import pytest
import torch
from global_land_mask import globe

from align.wings.data import land
from align.wings.data.land import CELL, TROPIC, ZONES, Settings, load

SMALL = Settings(train=150, test=60)


@pytest.fixture(scope="module")
def splits():
    return load(SMALL)


def test_patches_are_land_and_sea_around_a_middle_on_land(splits):
    for gallery, count in ((splits.train, 150), (splits.test, 60)):
        assert gallery.images.shape == (count, 1, 16, 16)
        assert set(gallery.images.unique().tolist()) == {0.0, 1.0}
        share = gallery.images.mean((1, 2, 3))
        assert share.min() >= SMALL.least
        assert share.max() <= 1 - SMALL.least
        assert globe.is_land(gallery.more["latitude"].numpy(), gallery.more["longitude"].numpy()).all()


def test_north_is_up_and_east_is_right():
    """Around Cape Agulhas there is land to the north alone; around Cabo da Roca to the east alone."""
    cape, roca = (
        torch.tensor(land._seen(Settings(minutes=5), np.array([at[0]]), np.array([at[1]]))[0])
        for at in ((-34.8, 20.0), (38.78, -9.49))
    )
    assert cape[:6].mean() > 0.8 > 0.1 > cape[10:].mean()
    assert roca[:, 10:].mean() > 0.7 > 0.1 > roca[:, :6].mean()


def test_pixels_are_as_wide_as_high_in_kilometres():
    """At 60 degrees a degree of longitude is half as long: the patch spans twice as many."""
    seen = []

    class Globe:
        def is_land(self, latitude, longitude):
            seen.append((np.ptp(latitude), np.ptp(longitude)))
            return np.zeros(latitude.shape, bool)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(land, "needed", lambda name: type("Mask", (), {"globe": Globe()}))
        land._seen(SMALL, np.array([60.0]), np.array([10.0]))
    assert seen[0][1] == pytest.approx(2 * seen[0][0])


def test_held_out_patches_share_no_cell_with_others(splits):
    def cells(gallery):
        latitude, longitude = gallery.more["latitude"], gallery.more["longitude"]
        reach = SMALL.reach / torch.cos(torch.deg2rad(latitude))
        found = set()
        for up in (-1, 1):
            for across in (-1, 1):
                row = ((latitude + up * SMALL.reach + 90) / CELL).long()
                column = ((longitude + across * reach + 180) / CELL).long()
                found |= set(zip(row.tolist(), column.tolist(), strict=True))
        return found

    assert not cells(splits.train) & cells(splits.test)


def test_labels_are_zones(splits):
    latitude = splits.train.more["latitude"]
    names = [ZONES[label] for label in splits.train.labels.tolist()]
    assert all((name == "north") == (at > TROPIC) for name, at in zip(names, latitude.tolist(), strict=True))
    assert all((name == "south") == (at < -TROPIC) for name, at in zip(names, latitude.tolist(), strict=True))


def test_the_seed_decides(splits):
    assert torch.equal(load(SMALL).train.images, splits.train.images)
    other = load(Settings(train=150, test=60, seed=1))
    assert not torch.equal(other.train.more["latitude"], splits.train.more["latitude"])


@pytest.mark.parametrize(
    "wrong", [{"train": 0}, {"test": 0}, {"size": 3}, {"minutes": 0.5}, {"minutes": 60.0}, {"least": 0.5}]
)
def test_what_cannot_be_is_refused(wrong):
    with pytest.raises(ValueError, match=r"^least must"):
        Settings(size=5, least=0.49)  # no share of 25 pixels is as near to a half
    with pytest.raises(ValueError, match=f"^{next(iter(wrong))} must"):
        Settings(**wrong)
