"""Slices of brains with their tissues: patients made of one real template by smooth warps and curves of brightness.

The template is the MNI152 T1 volume that nilearn carries, with its maps of grey and white matter. All patients are
that one head: what is learned here says nothing of how much people differ.
"""

from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from align.wings.extras import needed
from align.wings.gallery import Gallery, Splits

MAPS = ("t1", "gm", "wm")
FILE = "mni_icbm152_{}_tal_nlin_sym_09a_converted.nii.gz"
TISSUES = ("neither", "grey matter", "white matter")
"""What the numbers in ``more["tissue"]`` are."""
HEIGHTS = ("low", "middle", "high")
SHOWN = (0.3, 0.75)
"""From where to where, as shares of the volume's height, slices show brain."""
KNOTS = 4
"""Of the warps and a side."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """How many patients, and how they differ."""

    train_patients: int = 16
    """Patients to train on."""
    test_patients: int = 8
    """Patients held out."""
    slices: int = 12
    """Of each patient, evenly spaced from low to high; horizontal, the front of the head up."""
    size: int = 48
    """Pixels a side."""
    warp: float = 0.03
    """Standard deviation of how far places are moved, as a share of the volume's side."""
    brightness: float = 0.3
    """Standard deviation of the logarithm of the exponent that brightness is raised to."""
    seed: int = 0
    """Of the patients."""

    def __post_init__(self) -> None:
        for name, least in (("train_patients", 1), ("test_patients", 1), ("slices", 1), ("size", 16)):
            if getattr(self, name) < least:
                raise ValueError(f"{name} must be at least {least}, got {getattr(self, name)}")
        if self.size > 160:
            raise ValueError(f"size must be at most 160, got {self.size}")
        if not 0 <= self.warp <= 0.1:
            raise ValueError(f"warp must lie in [0, 0.1], got {self.warp}")
        if not 0 <= self.brightness <= 1:
            raise ValueError(f"brightness must lie in [0, 1], got {self.brightness}")


def load(settings: Settings) -> Splits:
    """Return slices of patients to train on and of held-out ones.

    ``more["tissue"]`` has the numbers of :data:`TISSUES` at every pixel, ``more["patient"]`` whose slice it is; labels
    say how high in the head.

    Raises:
        ValueError: nilearn is missing, or carries other files.
    """
    volume = template(settings.size)
    generator = torch.Generator().manual_seed(settings.seed)
    galleries = [
        _gallery([patient(volume, settings, generator) for _ in range(count)], settings)
        for count in (settings.train_patients, settings.test_patients)
    ]
    return Splits(train=galleries[0], test=galleries[1])


@cache
def template(size: int) -> Tensor:
    """Return brightness and the shares of grey and white matter, (3, height, front to back, side to side) in [0, 1].

    Raises:
        ValueError: nilearn is missing, or carries other files.
    """
    folder, read = Path(needed("nilearn").__file__).parent / "datasets" / "data", needed("nibabel").load
    missing = [name for name in map(FILE.format, MAPS) if not (folder / name).is_file()]
    if missing:
        raise ValueError(f"this release of nilearn does not carry {', '.join(missing)}; 0.14 does")
    whole = torch.stack([torch.tensor(read(folder / FILE.format(name)).get_fdata()) for name in MAPS]).float() / 255
    turned = whole.permute(0, 3, 2, 1).flip(2)  # from left to right, back to front, low to high
    side = max(turned.shape[1:])
    rims = [(side - length) // 2 for length in turned.shape[1:]]
    cube = torch.zeros(len(MAPS), side, side, side)
    places = tuple(slice(rim, rim + length) for rim, length in zip(rims, turned.shape[1:], strict=True))
    cube[(slice(None), *places)] = turned
    return F.interpolate(cube[None], size=(size,) * 3, mode="area")[0]


def patient(volume: Tensor, settings: Settings, generator: torch.Generator) -> Tensor:
    """Return a volume like the template's, moved by a smooth warp, with another curve of brightness."""
    moved = settings.warp * 2 * torch.randn(1, 3, KNOTS, KNOTS, KNOTS, generator=generator)
    smooth = F.interpolate(moved, size=volume.shape[1:], mode="trilinear", align_corners=True)
    still = F.affine_grid(torch.eye(3, 4)[None], [1, 1, *volume.shape[1:]], align_corners=False)
    found = F.grid_sample(volume[None], still + smooth.permute(0, 2, 3, 4, 1), align_corners=False)[0].clamp(0, 1)
    exponent = float((settings.brightness * torch.randn((), generator=generator)).exp())
    return torch.cat([found[:1] ** exponent, found[1:]])


def _gallery(patients: list[Tensor], settings: Settings) -> Gallery:
    low, high = SHOWN
    at = (torch.linspace(low, high, settings.slices) * settings.size).long().clamp_max(settings.size - 1)
    cut = torch.stack([one[:, at] for one in patients]).transpose(1, 2).flatten(0, 1)  # (patients * slices, 3, ...)
    shares = torch.cat([1 - cut[:, 1:].sum(1, keepdim=True), cut[:, 1:]], 1)
    heights = (torch.arange(settings.slices) * len(HEIGHTS)) // settings.slices
    return Gallery(
        images=cut[:, :1].contiguous(),
        labels=heights.repeat(len(patients)),
        classes=HEIGHTS,
        more={
            "tissue": shares.argmax(1),
            "patient": torch.arange(len(patients)).repeat_interleave(settings.slices),
        },
    )
