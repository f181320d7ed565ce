"""Grey patches of real photographs and textures that scikit-image carries; the label is the picture a patch is from.

Patches to train on come from the left half of each picture, held-out ones from the right half, so that nothing but
what a picture looks like everywhere tells. Raw pixels say little of it: neighbours get about a fifth right.
"""

from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from align.wings.extras import needed
from align.wings.gallery import Gallery, Splits

FILES = (
    *("brick.png", "camera.png", "cell.png", "chelsea.png", "clock_motion.png", "coffee.png", "coins.png", "grass.png"),
    *("gravel.png", "hubble_deep_field.jpg", "ihc.png", "microaneurysms.png", "moon.png", "motorcycle_left.png"),
    *("page.png", "phantom.png", "retina.jpg", "rocket.jpg", "text.png"),
)
"""Of those in scikit-image's own package, all that show something everywhere, and no faces."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many patches, and how large."""

    size: int = 32
    """Pixels a side."""
    train_per_picture: int = 100
    """Patches of each picture's left half."""
    test_per_picture: int = 50
    """Patches of each picture's right half."""
    seed: int = 0
    """Where the patches are."""

    def __post_init__(self) -> None:
        if not 8 <= self.size <= 48:  # half of the narrowest picture is 51 pixels wide
            raise ValueError(f"size must lie in 8 ... 48, got {self.size}")
        for name in ("train_per_picture", "test_per_picture"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")


def load(settings: Settings) -> Splits:
    """Return patches of the left halves, and held-out ones of the right halves.

    Raises:
        ValueError: scikit-image is missing.
    """
    whole = pictures()
    generator = torch.Generator().manual_seed(settings.seed)
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    for picture in whole.values():
        middle = picture.shape[1] // 2
        for half, count, found in (
            (picture[:, :middle], settings.train_per_picture, halves[0]),
            (picture[:, middle:], settings.test_per_picture, halves[1]),
        ):
            found.append(_patches(half, count, settings.size, generator))
    train, test = (_gallery(found, tuple(whole)) for found in halves)
    return Splits(train=train, test=test)


def pictures() -> dict[str, Tensor]:
    """Return the grey pictures by name, (height, width) in [0, 1]; nothing is fetched.

    Raises:
        ValueError: scikit-image is missing, or carries other pictures.
    """
    folder, read = Path(needed("skimage").__file__).parent / "data", needed("skimage.io").imread
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"this release of scikit-image does not carry {', '.join(missing)}; 0.26 does")
    return {Path(name).stem: _grey(read(folder / name)) for name in FILES}


def _grey(picture: object) -> Tensor:
    image = torch.tensor(picture).float()
    if image.ndim == 3:
        image = image[..., :3] @ torch.tensor([0.299, 0.587, 0.114])
    image = image / max(float(image.max()), 1.0)
    largest = max(image.shape)
    if largest > 512:  # one scale for all: patches of a large picture would show nothing
        image = F.interpolate(image[None, None], scale_factor=512 / largest, mode="area")[0, 0]
    return image


def _patches(half: Tensor, count: int, size: int, generator: torch.Generator) -> Tensor:
    height, width = half.shape
    tops = torch.randint(0, height - size + 1, (count,), generator=generator).tolist()
    lefts = torch.randint(0, width - size + 1, (count,), generator=generator).tolist()
    cut = [half[top : top + size, left : left + size] for top, left in zip(tops, lefts, strict=True)]
    return torch.stack(cut)[:, None]


def _gallery(found: list[Tensor], names: tuple[str, ...]) -> Gallery:
    labels = torch.cat([torch.full((len(patches),), label) for label, patches in enumerate(found)])
    return Gallery(images=torch.cat(found), labels=labels, classes=names)
