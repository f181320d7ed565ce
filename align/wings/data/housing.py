"""506 districts of Boston, twelve numbers each, that come with mlxtend: which half of the prices is one in?

A row is a picture of one line, so that methods of vectors, which flatten what they get, take it like any other. The
thirteenth column of the set of 1978, made of the share of Black residents, is left out.
"""

from dataclasses import dataclass

import torch

from align.wings.extras import needed
from align.wings.gallery import Gallery, Splits

COLUMNS = ("CRIM", "ZN", "INDUS", "CHAS", "NOX", "RM", "AGE", "DIS", "RAD", "TAX", "PTRATIO", "B", "LSTAT")
LEFT_OUT = "B"
HALVES = ("cheaper", "dearer")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What is held out."""

    test_share: float = 0.3
    """Share of the rows that are held out."""
    seed: int = 0
    """Chooses them."""

    def __post_init__(self) -> None:
        if not 0 < self.test_share < 1:
            raise ValueError(f"test_share must lie in (0, 1), got {self.test_share}")


def load(settings: Settings) -> Splits:
    """Return rows to train on and held-out ones, ``images`` of shape (n, 1, 1, 12).

    Columns lie in [0, 1] by the smallest and largest value trained on, and held-out ones are cut off there. Labels say
    whether a price is above the median of those trained on; ``more["price"]`` is the price, in thousands of dollars.

    Raises:
        ValueError: mlxtend is missing.
    """
    rows, prices = (torch.tensor(column) for column in needed("mlxtend.data").boston_housing_data())
    rows = rows[:, [place for place, name in enumerate(COLUMNS) if name != LEFT_OUT]]
    order = torch.randperm(len(rows), generator=torch.Generator().manual_seed(settings.seed))
    cut = round(settings.test_share * len(rows))
    test, train = order[:cut].sort().values, order[cut:].sort().values
    low, high = rows[train].amin(0), rows[train].amax(0)
    scaled = ((rows - low) / (high - low)).clamp(0, 1).float()
    whole = Gallery(
        images=scaled[:, None, None],
        labels=(prices > prices[train].median()).long(),
        classes=HALVES,
        more={"price": prices},
    )
    return Splits(train=whole.take(train), test=whole.take(test))
