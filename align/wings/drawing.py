"""Pictures that methods draw of themselves, in the reports' manner."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure
from torch import Tensor

from align.report.look import BLUE, RUN_COLOURS, VERMILLION, look
from align.report.look import COLOURS as NAMED


def contact_sheet(images: Tensor, titles: Sequence[str] = (), columns: int = 8, caption: str = "") -> Figure:
    """Draw pictures side by side.

    Args:
        images: of shape (n, channels, height, width), in [0, 1]; one or three channels.
        titles: above each.
        columns: of the sheet.
        caption: above all.
    """
    rows = -(-len(images) // columns)
    with look(8, axes__grid=False):
        figure = Figure(figsize=(1.25 * columns, (1.4 if titles else 1.2) * rows + 0.3), dpi=110, layout="constrained")
        for place, image in enumerate(images):
            axes = figure.add_subplot(rows, columns, place + 1)
            _show(axes, image)
            if titles:
                axes.set_title(titles[place], fontsize=7)
        if caption:
            figure.suptitle(caption, fontsize=9)
    return figure


def _show(axes: Any, image: Tensor) -> None:
    """Show a picture of shape (channels, height, width) in a thin frame; rows of numbers are drawn as bands."""
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set(visible=True, color=NAMED["ink"], linewidth=0.3)
    shown = image[0] if len(image) == 1 else image.permute(1, 2, 0)
    axes.imshow(shown.clamp(0, 1).numpy(), "gray", vmin=0, vmax=1, aspect="equal" if len(shown) > 1 else 4)


def embeddings(points: Tensor, labels: Tensor, classes: Sequence[str], title: str = "") -> Figure:
    """Draw embeddings on their first two principal axes, a colour a class (the first twelve classes)."""
    centred = points.double() - points.double().mean(0)
    axes_of = torch.linalg.svd(centred, full_matrices=False)
    flat = centred @ axes_of.Vh[:2].T
    share = float(axes_of.S[:2].square().sum() / axes_of.S.square().sum())
    with look(9):
        figure = Figure(figsize=(6.2, 4.6), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        for label, name in list(enumerate(classes))[:12]:
            here = flat[labels == label]
            colour, marker = NAMED[RUN_COLOURS[label % len(RUN_COLOURS)]], "o^s"[label // len(RUN_COLOURS) % 3]
            axes.scatter(here[:, 0], here[:, 1], s=9, color=colour, marker=marker, label=name, alpha=0.7, linewidths=0)
        axes.set_xlabel("first principal axis")
        axes.set_ylabel("second")
        axes.set_title(f"{title} ({share:.0%} of the variance)".strip(), fontsize=9)
        axes.legend(fontsize=7, loc="center left", bbox_to_anchor=(1, 0.5), frameon=False)
    return figure


def similarity_histogram(positive: Tensor, negative: Tensor, title: str = "") -> Figure:
    """Draw how similar rows that belong together are, beside those that do not."""
    with look(9):
        figure = Figure(figsize=(5.4, 3.4), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        bins = np.linspace(-1, 1, 61).tolist()
        for values, colour, name in ((negative, VERMILLION, "apart"), (positive, BLUE, "together")):
            axes.hist(values.flatten().numpy(), bins=bins, density=True, alpha=0.6, color=colour, label=name)
        axes.set_xlabel("cosine similarity")
        axes.set_ylabel("density")
        axes.set_title(title, fontsize=9)
        axes.legend(frameon=False)
    return figure


def lines(
    curves: Mapping[str, tuple[Sequence[float], Sequence[float]]],
    *,
    across: str,
    up: str,
    title: str = "",
    logarithmic: str = "",
) -> Figure:
    """Draw named curves of points (x, y); ``logarithmic`` names the axes that are, such as ``xy``."""
    with look(9):
        figure = Figure(figsize=(5.6, 3.6), dpi=110, layout="constrained")
        axes = figure.add_subplot()
        for place, (name, (x, y)) in enumerate(curves.items()):
            colour = NAMED[RUN_COLOURS[place % len(RUN_COLOURS)]]
            axes.plot(x, y, color=colour, label=name, marker="o", markersize=3.5, linewidth=1.4)
        if "x" in logarithmic:
            axes.set_xscale("log")
        if "y" in logarithmic:
            axes.set_yscale("log")
        axes.set_xlabel(across)
        axes.set_ylabel(up)
        axes.set_title(title, fontsize=9)
        axes.legend(frameon=False, fontsize=8)
    return figure


def segmentations(images: Tensor, found: Tensor, truth: Tensor, columns: int = 6) -> Figure:
    """Draw pictures with the outline of what was found over that of the truth.

    Args:
        images: of shape (n, channels, height, width), in [0, 1].
        found: masks of shape (n, height, width).
        truth: masks of the same shape.
        columns: of the sheet.
    """
    rows = -(-len(images) // columns)
    with look(8, axes__grid=False):
        figure = Figure(figsize=(1.6 * columns, 1.6 * rows + 0.4), dpi=110, layout="constrained")
        for place, image in enumerate(images):
            axes = figure.add_subplot(rows, columns, place + 1)
            _show(axes, image)
            for mask, colour in ((truth[place], BLUE), (found[place], VERMILLION)):
                if 0 < mask.sum() < mask.numel():
                    axes.contour(mask.float().numpy(), levels=[0.5], colors=[colour], linewidths=1.2)
        figure.suptitle("blue: truth; red: found", fontsize=9)
    return figure


def registrations(fixed: Tensor, moved: Tensor, tiles: int = 4, columns: int = 6) -> Figure:
    """Draw checkerboards of two pictures that should lie on each other: edges go on across tiles where they do.

    Args:
        fixed: of shape (n, channels, height, width), in [0, 1].
        moved: of the same shape.
        tiles: of a side.
        columns: of the sheet.
    """
    height, width = fixed.shape[-2:]
    down, across = torch.arange(height) * tiles // height, torch.arange(width) * tiles // width
    chosen = (down[:, None] + across[None, :]) % 2 == 0
    return contact_sheet(torch.where(chosen, fixed, moved), columns=columns, caption="tiles of both pictures in turn")
