"""C-BSN: a blind-spot network whose blind spot can be switched off, for noise that neighbouring pixels share."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from align.trainers.base import RowLosses
from align.wings.drawing import contact_sheet
from align.wings.extras import needed
from align.wings.gallery import Gallery, Rows
from align.wings.method import Method, method
from align.wings.networks import seeded
from align.wings.processes import drawn
from align.wings.workbench import Workbench

CELL = 2
"""Pixels a side of the cells, one pixel of which random subsampling keeps."""


# ---- the objective -------------------------------------------------------------------------------------------------


def shuffled_down(images: Tensor, stride: int) -> Tensor:
    """Return the ``stride**2`` coarse pictures that a picture is woven of (PD in the paper).

    Neighbours in a coarse picture are ``stride`` pixels apart, so that noise of a shorter reach is independent there.

    Args:
        images: of shape (n, channels, height, width), sides multiples of the stride.
        stride: pixels from one to the next.

    Returns:
        Of shape (n * stride**2, channels, height / stride, width / stride).
    """
    n, channels, height, width = images.shape
    woven = F.pixel_unshuffle(images, stride).view(n, channels, stride**2, height // stride, width // stride)
    return woven.transpose(1, 2).flatten(0, 1)


def shuffled_up(coarse: Tensor, stride: int) -> Tensor:
    """Return the pictures whose coarse ones are given: the inverse of :func:`shuffled_down`."""
    n, channels = len(coarse) // stride**2, coarse.shape[1]
    woven = coarse.view(n, stride**2, channels, *coarse.shape[2:]).transpose(1, 2)
    return F.pixel_shuffle(woven.flatten(1, 2), stride)


def random_cells(images: Tensor) -> Tensor:
    """Return which pixel of each 2 x 2 cell is kept, of shape (n, height / 2, width / 2), numbers 0 ... 3."""
    n, _, height, width = images.shape
    cells = drawn(lambda rows: torch.randint(CELL**2, (rows, height // CELL, width // CELL)), n)
    return cells.to(images.device)


def subsampled(images: Tensor, cells: Tensor) -> Tensor:
    """Return pictures of half the size, one pixel of each cell (RS in the paper).

    Args:
        images: of shape (n, channels, height, width), sides even.
        cells: which pixel of each cell (:func:`random_cells`).
    """
    n, channels, height, width = images.shape
    inside = F.pixel_unshuffle(images, CELL).view(n, channels, CELL**2, height // CELL, width // CELL)
    return inside.gather(2, cells[:, None, None].expand(n, channels, 1, -1, -1))[:, :, 0]


def distance(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean absolute difference of each picture from its other, of shape (n,)."""
    return (a - b).abs().mean((1, 2, 3))


def invariance(whole: Tensor, small: Tensor, cells: Tensor) -> Tensor:
    """Return how far the subsampled output lies from the output of the subsampled picture, of shape (n,).

    Args:
        whole: output without the blind spot, of shape (n, channels, height, width).
        small: output with the blind spot on the picture subsampled by the same cells; a target, without gradient.
        cells: the pixels that were kept.
    """
    return distance(subsampled(whole, cells), small.detach())


def total(blind: Tensor, itself: Tensor, invariant: Tensor, *, ramp: float, weight: float) -> Tensor:
    """Return ``L_blind + a(t) (L_self + lambda L_inv)``; ``ramp`` is a(t), ``weight`` is lambda."""
    return blind + ramp * (itself + weight * invariant)


def normalised(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return each picture with mean 0 and standard deviation 1, and the means and deviations that undo it.

    The deviation is at least one over the root of the number of values, 1 / side of a square grey picture.
    """
    mean = images.mean((1, 2, 3), keepdim=True)
    least = images[0].numel() ** -0.5
    deviation = images.std((1, 2, 3), correction=0, keepdim=True).clamp_min(least)
    return (images - mean) / deviation, mean, deviation


def turned(images: Tensor) -> Tensor:
    """Return each square picture turned by a random number of right angles, and mirrored half the time."""
    turns = drawn(lambda rows: torch.randint(4, (rows,)), len(images)).tolist()
    mirrored = (drawn(torch.rand, len(images)) < 0.5).tolist()
    rows = [torch.rot90(image, k, (1, 2)) for image, k in zip(images, turns, strict=True)]
    return torch.stack([row.flip(2) if flip else row for row, flip in zip(rows, mirrored, strict=True)])


# ---- the network ---------------------------------------------------------------------------------------------------


class MaskableConv(nn.Conv2d):
    """A convolution whose middle tap can be switched off."""

    around: Tensor

    def __init__(self, width: int, kernel: int) -> None:
        super().__init__(width, width, kernel, padding=kernel // 2)
        around = torch.ones(kernel, kernel)
        around[kernel // 2, kernel // 2] = 0
        self.register_buffer("around", around, persistent=False)

    def forward(self, inputs: Tensor, masked: bool = True) -> Tensor:
        """Return the convolution, without its middle tap where ``masked``."""
        weight = self.weight * self.around if masked else self.weight
        return F.conv2d(inputs, weight, self.bias, padding=self.padding)


class Branch(nn.Module):
    """A maskable convolution, then residual modules of dilated ones.

    With a dilation of one more than the kernel reaches, no sum of dilated steps leads back from a neighbour to the
    pixel itself: the blind spot lasts through any number of modules.

    Args:
        width: channels.
        modules: residual modules.
        kernel: side of the maskable convolution.
        dilation: of the modules; ``kernel // 2 + 1`` is what keeps the blind spot.
    """

    def __init__(self, width: int, modules: int, kernel: int, dilation: int | None = None) -> None:
        super().__init__()
        step = kernel // 2 + 1 if dilation is None else dilation
        self.first = MaskableConv(width, kernel)
        self.residual = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=step, dilation=step),
                nn.ReLU(),
                nn.Conv2d(width, width, 1),
                nn.ReLU(),
            )
            for _ in range(modules)
        )

    def forward(self, inputs: Tensor, masked: bool) -> Tensor:
        """Return features of the same shape."""
        found = F.relu(self.first(inputs, masked))
        for module in self.residual:
            found = found + module(found)
        return found


LEAST = 16
"""Channels of the exit at least: of few, for some starts, so many never fire that nothing is learned."""


class ConditionalBlindSpot(nn.Module):
    """One network with a switch: with the blind spot no output sees its own pixel, without it the same weights do.

    Args:
        channels: of the pictures.
        width: channels inside.
        modules: residual modules of each branch.
    """

    def __init__(self, channels: int, width: int, modules: int) -> None:
        super().__init__()
        self.entry = nn.Conv2d(channels, width, 1)
        self.near, self.far = Branch(width, modules, kernel=3), Branch(width, modules, kernel=5)
        half = max(LEAST, width // 2)
        self.exit = nn.Sequential(
            nn.Conv2d(2 * width, half, 1), nn.ReLU(), nn.Conv2d(half, half, 1), nn.ReLU(), nn.Conv2d(half, channels, 1)
        )
        for part in self.modules():  # torch's own start is so small that some hundred steps would go into its scale
            if isinstance(part, nn.Conv2d):
                nn.init.kaiming_normal_(part.weight, nonlinearity="relu")
                nn.init.zeros_(part.bias)  # type: ignore[arg-type]

    def see(self, images: Tensor, *, masked: bool) -> Tensor:
        """Return the network's output, with the blind spot where ``masked``."""
        inside = F.relu(self.entry(images))
        found: Tensor = self.exit(torch.cat([self.near(inside, masked), self.far(inside, masked)], 1))
        return found

    def forward(self, images: Tensor, stride: int, cells: Tensor | None) -> tuple[Tensor, Tensor, Tensor]:
        """Return all that a loss compares: the blind output, and where there are cells, the other two.

        Args:
            images: of shape (n, channels, height, width).
            stride: of the downsampling under the blind spot; 1 is none.
            cells: pixels that are kept for the invariance; None for the baselines, which have none.

        Returns:
            The output with the blind spot on the downsampled picture, at full size; the output without it; and the
            output with it on the subsampled picture, without gradient. The latter two are empty without cells.
        """
        blind = shuffled_up(self.see(shuffled_down(images, stride), masked=True), stride)
        if cells is None:
            return blind, images.new_zeros(0), images.new_zeros(0)
        with torch.no_grad():
            small = self.see(subsampled(images, cells), masked=True)
        return blind, self.see(images, masked=False), small


# ---- the method ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True, kw_only=True)
class CbsnSettings:
    """The network, and what it is trained to do."""

    objective: Literal["conditional", "downsampled", "plain"] = "conditional"
    """The method; or the same network always blind, on downsampled pictures in training and test; or at full size."""
    stride: int = 5
    """Of the downsampling under the blind spot."""
    test_stride: int = 2
    """Of the downsampling in the test of ``downsampled``, where a small one keeps more detail."""
    invariance: float = 2.0
    """Coefficient of the invariance, the paper's lambda."""
    ramp: float = 0.4
    """Share of the steps over which the terms without blind spot rise from nothing to their full weight."""
    width: int = 16
    """Channels inside; the paper's 128."""
    modules: int = 2
    """Residual modules of each branch; the paper's 9."""
    validation: float = 0.15
    """Share of the training pictures kept apart, which tuning looks at."""

    def __post_init__(self) -> None:
        for name in ("stride", "test_stride", "width", "modules"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.invariance < 0:
            raise ValueError(f"invariance must be at least 0, got {self.invariance}")
        for name in ("ramp", "validation"):
            if not 0 < getattr(self, name) < 1:
                raise ValueError(f"{name} must lie in (0, 1), got {getattr(self, name)}")


@method(
    title="Self-supervised Image Denoising with Downsampled Invariance Loss and Conditional Blind-Spot Network",
    arxiv="2304.09507",
    venue="ICCV 2023",
    equation=(
        "L = |PD^-1(f_on(PD x)) - x| + a(t) (|f_off(x) - x| + lambda |RS(f_off(x)) - sg f_on(RS x)|), "
        "a(t) = min(1, t / (0.4 T))"
    ),
    departures=(
        "16 channels and 2 modules a branch on grey tiles, not 128 and 9 on real camera noise; T is some hundred steps",
        "the learning rate falls along the recipe's schedule, not by halves",
        "tuning looks at the PSNR of validation tiles, whose clean pictures are known here",
        "the downsampled baseline is tested at its own small stride, without random replacing refinement",
    ),
)
class Cbsn(Method):
    """A denoiser trained on noisy pictures alone; the blind spot teaches it, and is off when it is used."""

    Settings = CbsnSettings
    quick = {"trainer.max_steps": 2, "trainer.eval_strategy": "no", "settings.width": 4, "data.test_per_picture": 1}

    def run(self, work: Workbench) -> Mapping[str, float]:
        """Train on noisy pictures and measure held-out ones against their clean pictures, where these are known."""
        train, validation = work.data.train.split(self.settings.validation, work.seed)
        test, size = work.data.test, train.images.shape[-1]
        whole = math.lcm(self.stride, CELL)
        if size % whole or train.images.shape[-2] != size:
            raise ValueError(f"data: training pictures must be squares of a multiple of {whole} pixels, got {size}")
        with seeded(work.seed):
            self.net = ConditionalBlindSpot(train.images.shape[1], self.settings.width, self.settings.modules)
        self.work = work
        known = "clean" in train.more and "clean" in test.more

        def figures() -> Mapping[str, float]:
            return {"validation_psnr": fidelity(self.denoised(validation.images), validation.more["clean"])["psnr"]}

        work.train(self.net, self.losses, Rows(images=train.images), figures=figures if known else None)
        found = self.denoised(test.images)
        self.draw(test, found)
        removed = {"removed": float((test.images - found).std())}
        if not known:
            return removed
        before = fidelity(test.images, test.more["clean"])
        after = fidelity(found, test.more["clean"])
        gain = {"gain": after["psnr"] - before["psnr"], "noisy_psnr": before["psnr"]}
        return {**after, **gain, **removed, **figures()}

    @property
    def stride(self) -> int:
        """Stride of the downsampling in training."""
        return 1 if self.settings.objective == "plain" else self.settings.stride

    def losses(self, model: nn.Module, batch: Mapping[str, Tensor]) -> RowLosses:
        """Return what each picture loses, in units of its own deviation."""
        noisy, _, _ = normalised(turned(batch["images"]))
        cells = random_cells(noisy) if self.settings.objective == "conditional" else None
        blind, whole, small = model(noisy, self.stride, cells)
        of_blind = distance(blind, noisy)
        if cells is None:
            return RowLosses(losses=of_blind, metrics={"blind": of_blind})
        itself, invariant = distance(whole, noisy), invariance(whole, small, cells)
        ramp = min(1.0, self.work.progress / self.settings.ramp)
        losses = total(of_blind, itself, invariant, ramp=ramp, weight=self.settings.invariance)
        return RowLosses(losses=losses, metrics={"blind": of_blind, "itself": itself, "invariance": invariant})

    def denoised(self, noisy: Tensor) -> Tensor:
        """Return pictures without their noise: one pass at full size, and for the method without the blind spot."""
        stride = self.settings.test_stride if self.settings.objective == "downsampled" else 1

        def of_some(images: Tensor) -> Tensor:
            known, mean, deviation = normalised(images)
            if self.settings.objective == "conditional":
                found = self.net.see(known, masked=False)
            else:
                height, width = known.shape[2:]
                padded = F.pad(known, (0, -width % stride, 0, -height % stride), mode="reflect")
                found = shuffled_up(self.net.see(shuffled_down(padded, stride), masked=True), stride)
                found = found[..., :height, :width]
            return found * deviation + mean

        return self.work.over(of_some, noisy, batch_size=8)

    def draw(self, test: Gallery, found: Tensor) -> None:
        """Draw held-out pictures as they came, denoised, and clean where that is known."""
        shown = torch.linspace(0, len(test) - 1, min(6, len(test))).long()
        rows = [test.images[shown], found[shown]] + ([test.more["clean"][shown]] if "clean" in test.more else [])
        caption = "noisy, denoised" + (", clean" if "clean" in test.more else "")
        self.work.picture("denoised", lambda: contact_sheet(torch.cat(rows), columns=len(shown), caption=caption))


def fidelity(images: Tensor, clean: Tensor) -> dict[str, float]:
    """Return ``psnr`` in decibels and ``ssim``, means over pictures in [0, 1] (kornia's)."""
    metrics = needed("kornia.metrics")
    psnr = [float(metrics.psnr(one, other, 1.0)) for one, other in zip(images, clean, strict=True)]
    return {"psnr": sum(psnr) / len(psnr), "ssim": float(metrics.ssim(images, clean, 11, padding="valid").mean())}
