"""Two views of a picture, by kornia's augmentations on whole batches."""

import torch
from torch import Tensor, nn

from align.wings.extras import needed
from align.wings.processes import own, processes


class Views(nn.Module):
    """Random crop, flip, brightness, contrast and noise: the views contrastive methods compare.

    Args:
        size: pixels a side of what comes out.
        smallest: least share of the picture's area in a crop.
        flip: whether pictures may be mirrored; digits may not.
        jitter: reach of brightness and contrast.
        noise: standard deviation of Gaussian noise.
    """

    def __init__(
        self, size: int, *, smallest: float = 0.3, flip: bool = True, jitter: float = 0.4, noise: float = 0.0
    ) -> None:
        super().__init__()
        augment = needed("kornia.augmentation")
        steps = [augment.RandomResizedCrop((size, size), scale=(smallest, 1.0), ratio=(0.8, 1.25))]
        steps += [augment.RandomHorizontalFlip(p=0.5)] if flip else []
        steps += [augment.RandomBrightness((1 - jitter, 1 + jitter)), augment.RandomContrast((1 - jitter, 1 + jitter))]
        steps += [augment.RandomGaussianNoise(std=noise, p=1.0)] if noise else []
        self.steps = nn.ModuleList(steps)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        """Return one view of each picture; of several processes, those that one with all pictures would draw."""
        found = images
        for step in self.steps:
            found = step(found, params=_of_own(step, found.shape))
        return found

    def two(self, images: Tensor) -> Tensor:
        """Return two views of each picture, all first ones before all second ones."""
        return torch.cat([self(images), self(images)])


def _of_own(step: nn.Module, shape: torch.Size) -> dict[str, Tensor]:
    """Return what one of kornia's augmentations draws for all processes' pictures, cut to this one's."""
    rows = shape[0] * processes()
    drawn = step.forward_parameters(torch.Size((rows, *shape[1:])))  # type: ignore[operator]
    cut = {name: value[own(shape[0])] if len(value) == rows else value for name, value in drawn.items()}
    return {**cut, "forward_input_shape": torch.tensor(shape)}
