"""Noisy photographs with their clean ones, made of the grey pictures that scikit-image carries.

Noise is laid over a whole picture, and tiles that do not overlap are cut from it: what is held out shares no pixel,
and no pixel's noise, with what is trained on. Held-out tiles come from other pictures.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from align.wings.data.patches import pictures
from align.wings.gallery import Gallery, Splits

TRAIN = ("brick", "chelsea", "coins", "gravel", "motorcycle_left", "rocket")
"""Pictures whose tiles are trained on."""
TEST = ("camera", "clock_motion", "coffee", "grass")
"""Pictures whose tiles are held out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many tiles, how large, and which noise."""

    size: int = 60
    """Pixels a side of a tile to train on."""
    test_size: int = 120
    """Pixels a side of a held-out tile."""
    train_per_picture: int = 30
    """Tiles of each of the training pictures."""
    test_per_picture: int = 4
    """Tiles of each of the held-out pictures."""
    noise: Literal["correlated", "independent"] = "correlated"
    """Gaussian noise blurred by the 3 x 3 binomial and scaled back, so that neighbours tell of it; or of each pixel."""
    sigma: float = 0.098
    """Standard deviation of the noise; pictures lie in [0, 1], and noisy ones are cut off there. 0.098 is 25 / 255."""
    seed: int = 0
    """Draws the noise and the tiles."""

    def __post_init__(self) -> None:
        for name in ("size", "test_size"):
            if not 16 <= getattr(self, name) <= 256:
                raise ValueError(f"{name} must lie in 16 ... 256, got {getattr(self, name)}")
        for name in ("train_per_picture", "test_per_picture"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.sigma <= 1:
            raise ValueError(f"sigma must lie in [0, 1], got {self.sigma}")


def load(settings: Settings) -> Splits:
    """Return noisy tiles to train on and held-out ones; ``more["clean"]`` has them clean, labels say of which picture.

    Raises:
        ValueError: scikit-image is missing, or a picture has fewer tiles than are asked for.
    """
    whole = pictures()
    generator = torch.Generator().manual_seed(settings.seed)

    def gallery(names: tuple[str, ...], size: int, count: int) -> Gallery:
        found = []
        for name in names:
            clean = whole[name]
            noisy = (clean + settings.sigma * noise(settings.noise, clean.shape, generator)).clamp(0, 1)
            tiles = _tiles(torch.stack([clean, noisy]), size)
            if len(tiles) < count:
                raise ValueError(f"{name} has {len(tiles)} tiles of {size} pixels, and {count} are asked for")
            found.append(tiles[torch.randperm(len(tiles), generator=generator)[:count]])
        labels = torch.arange(len(names)).repeat_interleave(count)
        both = torch.cat(found)
        return Gallery(images=both[:, 1:], labels=labels, classes=names, more={"clean": both[:, :1]})

    return Splits(
        train=gallery(TRAIN, settings.size, settings.train_per_picture),
        test=gallery(TEST, settings.test_size, settings.test_per_picture),
    )


def noise(kind: str, shape: torch.Size | tuple[int, int], generator: torch.Generator) -> Tensor:
    """Return Gaussian noise of mean 0 and deviation 1, of shape (height, width); kinds are those of the settings."""
    height, width = shape
    if kind == "independent":
        return torch.randn(height, width, generator=generator)
    white = torch.randn(1, 1, height + 2, width + 2, generator=generator)  # the rim is blurred like all else
    line = torch.tensor([1.0, 2.0, 1.0])
    kernel = torch.outer(line, line)
    return F.conv2d(white, (kernel / kernel.norm())[None, None])[0, 0]


def _tiles(picture: Tensor, size: int) -> Tensor:
    """Return the whole tiles of a picture, (channels, height, width), as (tiles, channels, size, size)."""
    found = picture.unfold(1, size, size).unfold(2, size, size)
    return found.permute(1, 2, 0, 3, 4).flatten(0, 1)
