"""How figures look: colours, type, and the few strokes that all of them are made of.

Colours are those of Okabe and Ito (2008), told apart by colour-blind readers; what is held out also differs by dash
and marker. Each stands for one thing, so that a page can exchange them for its own, light or dark.
"""

import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray

from align.report.series import Series

BLUE, VERMILLION, GREEN, PURPLE = "#0072B2", "#D55E00", "#009E73", "#B55A90"
ORANGE, SKY, GREY = "#E69F00", "#56B4E9", "#8A8A8A"
INK, FAINT = "#222222", "#C8C8C8"
COLOURS = {
    "blue": BLUE,
    "vermillion": VERMILLION,
    "green": GREEN,
    "purple": PURPLE,
    "orange": ORANGE,
    "sky": SKY,
    "grey": GREY,
    "ink": INK,
    "faint": FAINT,
}
"""Every colour that a figure uses, by the name a page knows it by."""

RUN_COLOURS = ("blue", "vermillion", "green", "purple", "orange", "sky", "grey")
"""Colours of runs that share a figure, in this order and then again from the first; ends of lines bear numbers too."""

MADE_BY = "align report"
"""Stands in every file that :mod:`align.report` may overwrite."""

PIXELS_PER_INCH = 100


@contextmanager
def look(size: float = 10, **more: Any) -> Iterator[None]:
    """Draw in the house's manner inside the block; text is shown as it is, ``$`` and all.

    Args:
        size: of the text, in points.
        more: matplotlib settings, with ``__`` for the dot.
    """
    settings: dict[Any, Any] = {
        "font.size": size,
        "text.parse_math": False,
        "text.color": INK,
        "axes.edgecolor": GREY,
        "axes.labelcolor": INK,
        "xtick.color": INK,
        "ytick.color": INK,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.grid": True,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.6,
        "svg.hashsalt": "align",  # with no date, the same metrics give the same bytes
    }
    settings |= {key.replace("__", "."): value for key, value in more.items()}
    with mpl.rc_context(settings), warnings.catch_warnings():
        # A name in a script that the font lacks is drawn as boxes here; pages show it in the reader's font.
        warnings.filterwarnings("ignore", message="Glyph .* missing from", category=UserWarning)
        yield


def save(figure: Figure, paths: list[Path]) -> list[Path]:
    """Write the figure to every path, by its ending, and return the paths."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        svg = path.suffix == ".svg"
        figure.savefig(path, metadata={"Date": None, "Creator": MADE_BY} if svg else {"Software": MADE_BY})
    return paths


def stroke(axes: Axes, line: Series, label: str, colour: str, **style: Any) -> None:
    """Draw a series where it has points; a single point is shown as a dot."""
    if len(line):
        usual = {"linewidth": 1.5, "markersize": 4, "marker": "o" if len(line) == 1 else ""}
        axes.plot(line.steps, line.values, color=colour, label=label, **{**usual, **style})


def both_strokes(axes: Axes, training: Series, held_out: Series, label: str, colour: str) -> None:
    """Draw what training logged, pale where held-out data (dashed, with dots) is beside it."""
    stroke(axes, training, label, colour, alpha=0.4 if len(held_out) else 1.0)
    stroke(axes, held_out, "_" if len(training) else label, colour, linestyle="--", marker="o")


def base_line(axes: Axes, at: float = 0.0) -> None:
    """Draw a level that values are compared with."""
    axes.axhline(at, color=GREY, linewidth=0.9, zorder=1)


def legend(axes: Axes, **options: Any) -> None:
    """Draw the legend, if anything was drawn, with pale lines in full colour."""
    if axes.get_legend_handles_labels()[0]:
        for line in axes.legend(fontsize="small", **options).get_lines():
            line.set_alpha(1)


def steps_axis(axes: Axes, reach: tuple[float, float]) -> None:
    """Make the horizontal axis one of whole steps over the given reach."""
    axes.set_xlabel("optimiser step")
    axes.set_xlim(*reach)
    axes.xaxis.set_major_locator(MaxNLocator(nbins=8, steps=[1, 2, 5, 10], integer=True))


def reach_of(steps: Sequence[float]) -> tuple[float, float]:
    """Return the ends of an axis that shows these steps with a little room."""
    first, last = min(steps), max(steps)
    room = max(0.5, 0.03 * (last - first))
    return first - room, last + room


def number_ends(axes: Axes, ends: Sequence[tuple[float, float, str, str]], size: float = 10) -> None:
    """Write a text beside the end of each line, moved apart vertically where they would overlap.

    Args:
        axes: with their final limits.
        ends: x, y, text and colour of each end.
        size: of the text, in points.
    """
    figure = axes.get_figure(root=True)
    if figure is not None and (engine := figure.get_layout_engine()) is not None:
        engine.execute(figure)  # else distances on the screen are those before axes found their place
    to_screen: Callable[[Any], Any] = axes.transData.transform
    placed = sorted(((*to_screen((x, y)), x, y, text, colour) for x, y, text, colour in ends), key=lambda end: end[1])
    heights = np.array([end[1] for end in placed])
    least = size * 1.1 * axes.figure.dpi / 72
    spread = _apart(heights, least)
    for (_, height, x, y, text, colour), target in zip(placed, spread, strict=True):
        offset = (target - height) * 72 / axes.figure.dpi
        note = axes.annotate(
            text,
            (x, y),
            xytext=(5, offset),
            textcoords="offset points",
            color=colour,
            fontsize=size,
            va="center",
            annotation_clip=False,
        )
        note.set_in_layout(False)


def _apart(heights: NDArray[np.float64], least: float) -> NDArray[np.float64]:
    """Return ascending heights moved apart to at least ``least``, their mean where it was."""
    rungs = np.arange(len(heights)) * least
    moved: NDArray[np.float64] = np.maximum.accumulate(heights - rungs) + rungs
    shift = float((moved - heights).mean()) if len(heights) else 0.0
    return moved - shift
