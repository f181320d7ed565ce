"""Terrain: one place seen twice, turns that are rolls, coordinates that are places, neighbours that look alike."""

import math

import pytest
import torch
from sklearn.metrics.pairwise import haversine_distances

from align.wings.data import terrain
from align.wings.data.terrain import EARTH, PIXEL, Settings, crops, load, unrolled

SMALL = Settings(train=64, test=36)


@pytest.fixture(scope="module")
def places():
    return load(SMALL)


def on_the_map(gallery):
    """Places in pixels, from their coordinates."""
    latitude, longitude = (gallery.more[name].deg2rad() for name in ("latitude", "longitude"))
    y = -(latitude - latitude.mean()) * EARTH / PIXEL
    x = (longitude - longitude.mean()) * latitude.mean().cos() * EARTH / PIXEL
    return torch.stack([x, y], 1)


def test_it_has_what_was_asked_for_and_the_seed_decides(places):
    assert places.train.images.shape == (64, 3, 24, 24)
    assert places.train.more["ground"].shape == (64, 3, 12, 48)
    assert len(places.test) == 36
    for gallery in (places.train, places.test):
        for pictures in (gallery.images, gallery.more["ground"]):
            assert pictures.min() >= 0
            assert pictures.max() <= 1
            assert pictures.std() > 0.1
    again, other = load(SMALL), load(Settings(train=64, test=36, seed=1))
    assert torch.equal(again.train.images, places.train.images)
    assert torch.equal(again.test.more["ground"], places.test.more["ground"])
    assert not torch.equal(other.train.images, places.train.images)


def test_a_turn_is_a_roll_and_a_mirror_a_mirror(places):
    above = places.train.images
    flat = unrolled(above, 48, 12)
    for quarter in range(4):
        torch.testing.assert_close(unrolled(above.rot90(quarter, (2, 3)), 48, 12), flat.roll(-12 * quarter, 3))
    torch.testing.assert_close(unrolled(above.flip(3), 48, 12), flat.flip(3))


def test_columns_are_directions_clockwise_from_the_north_and_the_top_is_far():
    picture = torch.zeros(1, 3, 24, 24)
    picture[:, :, :, 12:] = 1  # the east
    assert unrolled(picture, 48, 12)[0, 0, 0].round().tolist() == [1.0] * 24 + [0.0] * 24
    ring = torch.zeros(1, 3, 24, 24)
    ring[:, :, 9:15, 9:15] = 1  # close by
    rows = unrolled(ring, 48, 12)[0, 0].mean(1)
    assert rows[0] == 0
    assert rows[-1] == 1


def test_crops_are_of_the_map():
    ground = terrain.terrain(60, torch.Generator().manual_seed(0))
    found = crops(ground, torch.tensor([[20.0, 30.0], [40.0, 12.0]], dtype=torch.float64), 24)
    torch.testing.assert_close(found[0], ground[:, 18:42, 8:32], rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(found[1], ground[:, 0:24, 28:52], rtol=1e-3, atol=1e-4)


def test_the_ground_shows_its_own_place_in_another_light(places):
    clear = load(Settings(train=64, test=36, exposure=0, noise=0)).train
    torch.testing.assert_close(clear.more["ground"], unrolled(clear.images, 48, 12))
    assert torch.equal(clear.images, places.train.images)
    difference = (places.train.more["ground"] - clear.more["ground"]).abs().mean((1, 2, 3))
    assert difference.min() > 0.05
    # of one picture, most of the difference is one light a colour
    pull = (places.train.more["ground"] - clear.more["ground"]).mean((2, 3))
    assert pull.std() > 0.05


def test_places_are_apart_and_neighbours_overlap(places):
    at = on_the_map(places.train)
    away = torch.cdist(at, at).fill_diagonal_(math.inf).amin(1)
    assert away.min() >= SMALL.spacing * (1 - terrain.SCATTER) - 1e-3
    assert away.max() < SMALL.size / 2
    numbers = torch.arange(64).double()
    for axis in at.T:  # the order of rows says nothing of where they are
        assert abs(float(torch.corrcoef(torch.stack([numbers, axis]))[0, 1])) < 0.35


def test_close_places_look_alike(places):
    at, flat = on_the_map(places.train), places.train.images.flatten(1)
    apart = torch.cdist(at, at).fill_diagonal_(math.inf)
    differ = torch.cdist(flat, flat)
    near = differ.gather(1, apart.argmin(1, keepdim=True)).mean()
    assert near < 0.75 * differ[apart.isfinite()].mean()


def test_haversine_of_radians_is_the_distance_on_the_map(places):
    """Of degrees it is not: they wrap around the sphere many times over."""
    more = places.train.more
    degrees = torch.stack([more["latitude"], more["longitude"]], 1).double()
    at = on_the_map(places.train)
    metres = torch.tensor(haversine_distances(degrees.deg2rad().numpy())) * EARTH
    torch.testing.assert_close(metres, torch.cdist(at, at) * PIXEL, rtol=2e-3, atol=0.1)
    swapped = torch.tensor(haversine_distances(degrees.numpy())) * EARTH
    assert not torch.allclose(swapped, metres, rtol=0.1)


def test_held_out_places_are_elsewhere(places):
    gap = (places.test.more["longitude"].min() - places.train.more["longitude"].max()).deg2rad()
    assert gap * EARTH * math.cos(math.radians(50)) > 100_000
    closest = torch.cdist(places.test.images.flatten(1), places.train.images.flatten(1)).min()
    among = torch.cdist(places.test.images.flatten(1), places.test.images.flatten(1)).fill_diagonal_(math.inf).min()
    assert closest > among


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"train": 1}, "train must be at least 2"),
        ({"size": 4}, "size must be at least 8"),
        ({"height": 2}, "height must be at least 4"),
        ({"width": 30}, "width must be a multiple of 4"),
        ({"spacing": 0.0}, "spacing must be above 0"),
        ({"exposure": 1.0}, "exposure must lie in"),
        ({"noise": -0.1}, "noise must be at least 0"),
    ],
)
def test_settings_are_checked(changes, message):
    with pytest.raises(ValueError, match=message):
        Settings(**changes)
