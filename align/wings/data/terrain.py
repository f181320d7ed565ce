"""Places on smooth random terrain, each seen from above and from the ground, where close places look alike.

The satellite's picture is a crop of a map. The ground's is the same crop unrolled around its middle: a column a
direction, clockwise from the north, the horizon on top; with a light of its own and noise. Places lie closer together
than a crop is wide, so that neighbours overlap and are easily confused. Those held out are on another map, far away.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from align.wings.gallery import Gallery, Splits

EARTH = 6_371_000.0
"""Radius in metres."""
PIXEL = 10.0
"""Metres that a pixel of the map is wide."""
WHERE = ((50.0, 10.0), (50.0, 20.0))
"""Latitude and longitude, in degrees, of the maps to train on and to be tested on."""
WAVES = (32, 16, 8, 4)
"""Pixels of the terrain's features, coarse to fine."""
SCATTER = 0.5
"""How far a place lies from the middle of its own square of the map, as a share of what the square allows."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many places, how close, and how differently they are seen."""

    train: int = 2400
    """Places to train on."""
    test: int = 1000
    """Places held out."""
    size: int = 24
    """Pixels a side of a satellite's picture."""
    width: int = 48
    """Directions of a ground picture; a multiple of 4, so that quarter turns are whole columns."""
    height: int = 12
    """Distances of a ground picture."""
    spacing: float = 3.0
    """Pixels of the map from place to place: each lies by chance in a square of its own."""
    exposure: float = 0.5
    """How far gain and offset of each colour on the ground go either way."""
    noise: float = 0.1
    """Standard deviation of what is added to each pixel on the ground."""
    seed: int = 0
    """Of maps, places, lights and noise."""

    def __post_init__(self) -> None:
        for name in ("train", "test"):
            if getattr(self, name) < 2:
                raise ValueError(f"{name} must be at least 2, got {getattr(self, name)}")
        for name, least in (("size", 8), ("height", 4)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.width < 8 or self.width % 4:
            raise ValueError(f"width must be a multiple of 4 and at least 8, got {self.width}")
        if not self.spacing > 0:
            raise ValueError(f"spacing must be above 0, got {self.spacing}")
        if not 0 <= self.exposure < 1:
            raise ValueError(f"exposure must lie in [0, 1), got {self.exposure}")
        if not self.noise >= 0:
            raise ValueError(f"noise must be at least 0, got {self.noise}")


def load(settings: Settings) -> Splits:
    """Return places to train on, and places of another map.

    ``images`` are the satellite's pictures; ``more`` has ``ground``, the pictures from the ground, and ``latitude``
    and ``longitude`` in degrees.
    """
    train, test = (_places(settings, part) for part in range(2))
    return Splits(train=train, test=test)


def terrain(side: int, generator: torch.Generator) -> Tensor:
    """Return a map in [0, 1] of shape (3, side, side): noise of several sizes, the coarse strongest."""
    found = torch.zeros(1, 3, side, side)
    for wave in WAVES:
        cells = side // wave + 3
        coarse = torch.randn(1, 3, cells, cells, generator=generator)
        fine = F.interpolate(coarse, size=cells * wave, mode="bicubic", align_corners=False)
        found += math.sqrt(wave) * fine[:, :, wave : wave + side, wave : wave + side]
    return torch.sigmoid(1.5 * found[0] / found.std())


def crops(ground: Tensor, places: Tensor, size: int) -> Tensor:
    """Cut pictures out of a map, between its pixels where places are.

    Args:
        ground: of shape (3, side, side).
        places: middles of the pictures, x to the right and y down in pixels, of shape (n, 2).
        size: pixels a side.
    """
    away = torch.arange(size, dtype=places.dtype) - (size - 1) / 2
    x = places[:, 0, None, None] + away[None, None, :].expand(-1, size, -1)
    y = places[:, 1, None, None] + away[None, :, None].expand(-1, -1, size)
    grid = torch.stack([x.expand(len(places), -1, -1), y.expand(len(places), -1, -1)], dim=-1)
    scaled = grid.view(1, -1, size, 2) * 2 / ground.shape[-1] - 1  # in units of half the map
    tall = F.grid_sample(ground[None], scaled.float(), padding_mode="border", align_corners=False)[0]
    return tall.view(3, len(places), size, size).transpose(0, 1).contiguous()


def unrolled(above: Tensor, width: int, height: int) -> Tensor:
    """Return pictures unrolled around their middles, of shape (n, 3, height, width).

    Columns are directions, clockwise from the north, which is up; rows are distances, the farthest on top. A quarter
    turn of the picture, anticlockwise, moves the columns by a quarter to the left; a mirrored picture mirrors them.
    """
    angle = 2 * math.pi * (torch.arange(width) + 0.5) / width
    distance = (height - torch.arange(height) - 0.5) / height
    x = distance[:, None] * angle.sin()[None]
    y = -distance[:, None] * angle.cos()[None]
    grid = torch.stack([x, y], dim=-1)[None].expand(len(above), -1, -1, -1)
    return F.grid_sample(above, grid, padding_mode="border", align_corners=False)


def _places(settings: Settings, part: int) -> Gallery:
    """Return the places of one map."""
    count = (settings.train, settings.test)[part]
    generator = torch.Generator().manual_seed(2 * settings.seed + part)
    places = settings.size / 2 + settings.spacing * _scattered(count, generator)
    ground = terrain(math.ceil(float(places.max())) + settings.size // 2 + 1, generator)
    above = crops(ground, places, settings.size)
    latitude, longitude = WHERE[part]
    degrees = math.degrees(PIXEL / EARTH)
    return Gallery(
        images=above,
        labels=torch.zeros(count, dtype=torch.long),
        classes=("terrain",),
        more={
            "ground": _lit(unrolled(above, settings.width, settings.height), settings, generator),
            "latitude": latitude - degrees * places[:, 1],
            "longitude": longitude + degrees / math.cos(math.radians(latitude)) * places[:, 0],
        },
    )


def _scattered(count: int, generator: torch.Generator) -> Tensor:
    """Return places in unit squares of their own, of shape (count, 2), in an order that says nothing of where."""
    side = math.ceil(math.sqrt(count))
    squares = torch.randperm(side * side, generator=generator)[:count]
    corners = torch.stack([squares % side, squares // side], dim=1).double()
    return corners + 0.5 + SCATTER * (torch.rand(count, 2, generator=generator, dtype=torch.float64) - 0.5)


def _lit(pictures: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Give every picture a gain and an offset a colour, and noise."""
    shape = (len(pictures), 3, 1, 1)
    gain, offset = (settings.exposure * (2 * torch.rand(shape, generator=generator) - 1) for _ in range(2))
    noise = settings.noise * torch.randn(pictures.shape, generator=generator)
    return ((pictures - 0.5) * (1 + gain) + 0.5 + offset / 2 + noise).clamp(0, 1)
