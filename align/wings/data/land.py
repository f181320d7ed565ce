"""Coasts of the world: patches of a land mask of one arc minute, with where on the globe each of them is.

What is held out lies in cells of the globe of its own: no held-out patch shares a pixel with one that is trained on.
"""

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from align.wings.extras import needed
from align.wings.gallery import Gallery, Splits

CELL = 20
"""Degrees of latitude and longitude that a cell of the globe is wide."""
HELD_OUT = 4
"""One of so many cells is held out."""
POLAR = 70.0
"""Degrees of latitude beyond which no patch has its middle: meridians come together there."""
TROPIC = 23.44
"""Latitude of the tropics, in degrees."""
ZONES = ("north", "tropics", "south")

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many patches, how large, and how much of a coast is in them."""

    train: int = 2400
    """Patches to train on."""
    test: int = 800
    """Patches held out."""
    size: int = 16
    """Pixels a side."""
    minutes: float = 15.0
    """Arc minutes of latitude that a pixel is wide; it is as wide in longitude, in kilometres."""
    least: float = 0.1
    """Least share of land in a patch, and of sea; with 0, inland patches count too. A patch's middle is on land."""
    seed: int = 0
    """Of cells and patches."""

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.size < 4:
            raise ValueError(f"size must be at least 4, got {self.size}")
        if not self.minutes >= 1 or self.reach / np.cos(np.radians(POLAR)) >= CELL / 3:
            widest = 2 * 60 * CELL / 3 * np.cos(np.radians(POLAR)) / self.size
            raise ValueError(f"minutes must lie in 1 ... {widest:.0f} for a size of {self.size}, got {self.minutes}")
        pixels = self.size**2
        if not 0 <= self.least < 0.5 or np.ceil(self.least * pixels) > np.floor((1 - self.least) * pixels):
            raise ValueError(f"least must lie in [0, 0.5), with a share of {pixels} pixels to spare, got {self.least}")

    @property
    def reach(self) -> float:
        """Degrees of latitude from a patch's middle to its rim."""
        return self.size * self.minutes / 120


def load(settings: Settings) -> Splits:
    """Return patches to train on and held-out ones: 1 on land, 0 on the sea; north is up.

    ``more`` has ``latitude`` and ``longitude`` of the middles, in degrees; labels say whether that is in the tropics,
    north of them or south.

    Raises:
        ValueError: global-land-mask is missing.
    """
    draw = np.random.default_rng(settings.seed)
    held_out = draw.permutation((180 // CELL) * (360 // CELL)) % HELD_OUT == 0
    train = _patches(settings, ~held_out, settings.train, draw)
    return Splits(train=train, test=_patches(settings, held_out, settings.test, draw))


def _patches(settings: Settings, cells: NDArray[np.bool_], count: int, draw: np.random.Generator) -> Gallery:
    images, middles = np.zeros((0, settings.size, settings.size), np.float32), np.zeros((0, 2))
    while len(images) < count:
        latitude, longitude = _inside(settings, cells, *_on_the_globe(2000, draw))
        found = _seen(settings, latitude, longitude)
        share = found.mean((1, 2))
        kept = (share >= settings.least) & (share <= 1 - settings.least)
        images = np.concatenate([images, found[kept]])
        middles = np.concatenate([middles, np.stack([latitude, longitude], 1)[kept]])
    north, east = (torch.tensor(column[:count]) for column in middles.T)
    zones = torch.where(north > TROPIC, 0, torch.where(north < -TROPIC, 2, 1))
    return Gallery(
        images=torch.tensor(images[:count])[:, None],
        labels=zones,
        classes=ZONES,
        more={"latitude": north, "longitude": east},
    )


def _on_the_globe(count: int, draw: np.random.Generator) -> tuple[Floats, Floats]:
    """Return latitudes and longitudes of points that are spread evenly over the sphere, none near a pole."""
    highest = np.sin(np.radians(POLAR))
    latitude = np.degrees(np.arcsin(draw.uniform(-highest, highest, count)))
    return latitude, draw.uniform(-180, 180, count)


def _inside(settings: Settings, cells: NDArray[np.bool_], latitude: Floats, longitude: Floats) -> tuple[Floats, Floats]:
    """Return the points on land whose whole patch is in one of some cells."""
    width = settings.reach / np.cos(np.radians(latitude))
    rows, columns = (latitude + 90) / CELL, (longitude + 180) / CELL
    number = rows.astype(int) * (360 // CELL) + columns.astype(int)
    kept = cells[number] & needed("global_land_mask").globe.is_land(latitude, longitude)
    for place, reach in ((rows, settings.reach / CELL), (columns, width / CELL)):
        kept &= (place % 1 >= reach) & (place % 1 <= 1 - reach)
    return latitude[kept], longitude[kept]


def _seen(settings: Settings, latitude: Floats, longitude: Floats) -> NDArray[np.float32]:
    """Return patches around points, of shape (n, size, size)."""
    away = (np.arange(settings.size) + 0.5 - settings.size / 2) * settings.minutes / 60
    across = away[None, None] / np.cos(np.radians(latitude))[:, None, None]
    shape = (len(latitude), settings.size, settings.size)
    up = np.broadcast_to(latitude[:, None, None] - away[None, :, None], shape)
    found = needed("global_land_mask").globe.is_land(up, np.broadcast_to(longitude[:, None, None] + across, shape))
    return np.asarray(found, np.float32)
