"""1,797 real handwritten digits, 8 x 8, that come with scikit-learn."""

from dataclasses import dataclass

import torch

from align.wings.extras import needed
from align.wings.gallery import Gallery, Splits


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is held out."""

    test_share: float = 0.4
    """Share of each class that is held out."""
    seed: int = 0
    """Chooses what is held out."""

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share must lie in (0, 1), got {self.test_share}")


def load(settings: Settings) -> Splits:
    """Return digits to train on and held-out ones.

    Raises:
        ValueError: scikit-learn is missing.
    """
    found = needed("sklearn.datasets").load_digits()
    images = torch.tensor(found.images, dtype=torch.float32)[:, None] / 16
    whole = Gallery(images=images, labels=torch.tensor(found.target).long(), classes=tuple("0123456789"))
    train, test = whole.split(settings.test_share, settings.seed)
    return Splits(train=train, test=test)
